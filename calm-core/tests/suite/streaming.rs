//! Tokens that are handed on while they are decoded are those of the whole output, whatever the policy.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use calm_core::{
    Backbone, DecodeOptions, Filter, FinalToken, Generation, Named, POLICIES, PolicySpec, Propagation,
    Sampling, Token, decode, decode_streamed,
};
use proptest::prelude::*;

use crate::toy::Toy;

/// Policies of every kind for a decoder of at least three layers.
const IDS: [&str; 20] = [
    "full",
    "static-2",
    "oracle",
    "calm-softmax-0.3",
    "calm-state-0.8-exits2",
    "calm-classifier-0.5-tau2",
    "patience-1",
    "shallow-deep-1-softmax-0.3",
    "shallow-deep-2-softmax-0.1-cap2",
    "shallow-deep-beta-1-0.4",
    "shallow-deep-beta-1-0.4-cap2",
    "shallow-deep-published-1-0.4",
    "self-speculative",
    "self-speculative-draft1.3",
    "self-speculative-draft2.1",
    "self-speculative-draft2.8",
    "shallow-cache-1",
    "oracle-copied",
    "perturbed-sampling-1",
    "perturbed-layer-1",
];

struct Case {
    toy: Toy,
    spec: PolicySpec,
    source: Vec<Token>,
    options: DecodeOptions,
}

impl Case {
    fn whole(&self) -> Generation {
        let prompt = self.toy.read(&[&self.source]).unwrap();
        decode(&*prompt, &*self.spec.make(&self.toy).unwrap(), &self.options).unwrap().swap_remove(0)
    }

    /// What was streamed, with a break after so many tokens, and what is left of the decoding.
    fn streamed(&self, most: usize) -> (Vec<FinalToken>, Generation) {
        let mut seen = Vec::new();
        let prompt = self.toy.read(&[&self.source]).unwrap();
        let policy = self.spec.make(&self.toy).unwrap();
        let generation = decode_streamed(&*prompt, &*policy, &self.options, |token| {
            seen.push(token);
            if seen.len() == most { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        (seen, generation.unwrap())
    }
}

fn tokens(seen: &[FinalToken]) -> Vec<Token> {
    seen.iter().map(|token| token.token).collect()
}

proptest! {
    #![proptest_config(crate::cases(768))]

    #[test]
    fn streamed_tokens_are_the_output(
        num_layers in 3..=5_usize,
        seed in any::<u64>(),
        source in proptest::collection::vec(0..11 as Token, 1..6),
        max_tokens in 0..16_usize,
        id in proptest::sample::select(&IDS[..]),
        temperature in proptest::option::of(0.3..3.0),
        (eager, ignore_eos, most) in (any::<bool>(), any::<bool>(), 1..16_usize),
    ) {
        let spec: PolicySpec = id.parse().unwrap();
        let toy = Toy::new(num_layers, seed);
        let draws = temperature.filter(|_| spec.make(&toy).unwrap().can_sample());
        let sampling = draws.map(|temperature| {
            Sampling::new(Filter { temperature, top_k: None, top_p: None }, vec![seed]).unwrap()
        });
        let propagation = if eager { Propagation::Eager } else { Propagation::Lazy };
        let options = DecodeOptions { propagation, ignore_eos, sampling, ..DecodeOptions::new(max_tokens) };
        let case = Case { toy, spec, source, options };
        let whole = case.whole();
        let (seen, generation) = case.streamed(usize::MAX);
        prop_assert_eq!(&tokens(&seen), &whole.tokens);
        // What drafts a policy makes by measured times differs from run to run; the output does not.
        if id != "self-speculative" {
            let layers: Vec<usize> = seen.iter().map(|token| token.exit_layer).collect();
            prop_assert_eq!(&layers, &whole.exit_layers);
            prop_assert_eq!(Generation { seconds: 0.0, ..generation }, Generation { seconds: 0.0, ..whole.clone() });
        } else {
            prop_assert_eq!(&generation.tokens, &whole.tokens);
        }

        // A decoding that is ended has what was seen of it.
        let (seen, generation) = case.streamed(most);
        let length = most.min(whole.tokens.len());
        prop_assert_eq!(tokens(&seen), &whole.tokens[..length]);
        prop_assert_eq!(&generation.tokens, &whole.tokens[..length]);
        prop_assert_eq!((generation.exit_layers.len(), generation.confidence.len()), (length, length));
    }
}

/// Tokens come while others are yet to be decoded, and a draft not before it is verified.
#[test]
fn tokens_come_as_soon_as_they_are_final() {
    let case = |id: &str| Case {
        toy: Toy::new(4, 5),
        spec: id.parse().unwrap(),
        source: vec![2, 3],
        options: DecodeOptions { ignore_eos: true, ..DecodeOptions::new(12) },
    };
    // Only what ran until the break is counted.
    let (_, generation) = case("full").streamed(3);
    assert_eq!(generation.executed_layers, 3 * 4);
    let (_, generation) = case("self-speculative-draft1.4").streamed(1);
    assert_eq!((generation.tokens.len(), generation.exit_layers.len()), (1, 1));
    assert!(generation.executed_layers < 12 * 4, "{}", generation.executed_layers);
}

#[test]
fn every_kind_of_policy_is_streamed_here() {
    let here: BTreeSet<&str> = IDS.iter().map(|id| id.parse::<PolicySpec>().unwrap().kind().name()).collect();
    assert_eq!(here, POLICIES.all().into_iter().map(|kind| kind.name()).collect());
}

#[test]
fn a_batch_cannot_be_streamed() {
    let toy = Toy::new(3, 1);
    let policy = "full".parse::<PolicySpec>().unwrap().make(&toy).unwrap();
    for sources in [&[][..], &[&[2][..], &[3][..]][..]] {
        let prompt = toy.read(sources).unwrap();
        let stream = |_: FinalToken| ControlFlow::Continue(());
        let error = decode_streamed(&*prompt, &*policy, &DecodeOptions::new(4), stream).unwrap_err();
        assert_eq!(error.to_string(), format!("one row can be streamed, not {}", sources.len()));
    }
}
