//! Drafts that are verified: outputs are those of the full model.

use calm_core::{
    Backbone, DecodeOptions, ExitHeads, Filter, Generation, PolicySpec, Sampling, Token, decode,
};
use proptest::prelude::*;

use crate::toy::Toy;

fn run(toy: &Toy, id: &str, sources: &[Vec<Token>], options: &DecodeOptions) -> Vec<Generation> {
    let spec: PolicySpec = id.parse().unwrap();
    let sources: Vec<&[Token]> = sources.iter().map(Vec::as_slice).collect();
    decode(&*toy.read(&sources).unwrap(), &*spec.make(toy).unwrap(), options).unwrap()
}

/// A toy with its exit heads for a part of the vocabulary, which then draft.
fn with_heads(toy: Toy, known: Option<Vec<Token>>) -> Toy {
    let heads = toy.exit_heads().unwrap();
    let layers = heads.iter().map(|(layer, head)| (layer, head.clone())).collect();
    let heads = ExitHeads::new(layers, known, heads.fitted_to().clone(), toy.shape()).unwrap();
    toy.with_exit_heads(Some(heads))
}

fn tokens(generations: &[Generation]) -> Vec<&[Token]> {
    generations.iter().map(|generation| &generation.tokens[..]).collect()
}

proptest! {
    #![proptest_config(crate::cases(256))]

    #[test]
    fn outputs_are_those_of_the_full_model(
        num_layers in 2..=5_usize,
        seed in any::<u64>(),
        sources in proptest::collection::vec(proptest::collection::vec(0..11 as Token, 1..6), 1..5),
        max_tokens in 1..14_usize,
        draft in proptest::option::of((1..5_usize, 1..6_usize)),
        temperature in proptest::option::of(0.3..3.0),
        ignore_eos in any::<bool>(),
        // Exit heads that know some tokens of eleven.
        known in proptest::option::of(proptest::collection::btree_set(0..11 as Token, 1..9)),
    ) {
        let toy = with_heads(Toy::new(num_layers, seed), known.map(|known| known.into_iter().collect()));
        let seeds: Vec<u64> = (0..sources.len() as u64).map(|row| seed ^ row).collect();
        let filter = temperature.map(|temperature| Filter { temperature, top_k: None, top_p: None });
        let sampling = filter.map(|filter| Sampling::new(filter, seeds).unwrap());
        let options = DecodeOptions { ignore_eos, sampling, ..DecodeOptions::new(max_tokens) };
        let id = match draft {
            Some((layers, length)) => format!("self-speculative-draft{}.{length}", layers.min(num_layers - 1)),
            None => "self-speculative".to_owned(),
        };
        let (full, drafted) = (run(&toy, "full", &sources, &options), run(&toy, &id, &sources, &options));
        prop_assert_eq!(tokens(&full), tokens(&drafted));
        for generation in &drafted {
            let length = generation.tokens.len();
            prop_assert_eq!((generation.exit_layers.len(), generation.confidence.len()), (length, length));
            // Tokens that stayed ran all layers.
            prop_assert!(generation.executed_layers >= num_layers * length);
            prop_assert_eq!(generation.propagated, 0);
        }
    }
}

/// A long output of one policy, which has time to learn and to make up its mind, and to draft again.
#[test]
fn outputs_stay_those_of_the_full_model_while_it_learns() {
    let (mut drafts, mut all) = (0, 0);
    for seed in 0..6 {
        let toy = Toy::new(4, seed);
        let options = DecodeOptions { ignore_eos: true, ..DecodeOptions::new(60) };
        let policy = "self-speculative".parse::<PolicySpec>().unwrap().make(&toy).unwrap();
        for batch in 0..12_u32 {
            let sources: Vec<Vec<Token>> =
                (0..1 + batch % 3).map(|row| vec![2 + row, 3 + batch % 7]).collect();
            let sources: Vec<&[Token]> = sources.iter().map(Vec::as_slice).collect();
            let prompt = toy.read(&sources).unwrap();
            let drafted = decode(&*prompt, &*policy, &options).unwrap();
            let full: PolicySpec = "full".parse().unwrap();
            let full = decode(&*prompt, &*full.make(&toy).unwrap(), &options).unwrap();
            assert_eq!(tokens(&full), tokens(&drafted));
            let exits = drafted.iter().flat_map(|generation| &generation.exit_layers);
            drafts += exits.clone().filter(|&&layer| layer < 4).count();
            all += exits.count();
        }
        let remark = policy.remark().unwrap();
        assert!(remark.contains("of the tokens came from drafts"), "{remark}");
    }
    assert!(drafts > all / 50, "{drafts} of {all} tokens were drafts");
}

/// The exit layers of a fixed draft, worked out by hand from what the layers of a toy say.
#[test]
fn fixed_drafts_stay_up_to_the_first_wrong_one() {
    for seed in 0..10 {
        let toy = Toy::new(3, seed);
        let options = DecodeOptions { ignore_eos: true, ..DecodeOptions::new(12) };
        let sources = [vec![3, 4]];
        let full = run(&toy, "full", &sources, &options).remove(0);
        let drafted = run(&toy, "self-speculative-draft2.3", &sources, &options).remove(0);
        // With exact K/V below, layer 2 says of a right prefix what it says in the full model.
        let shallow = layer_tokens(&toy, &full.tokens, &sources[0], 2);
        let (mut expected, mut drafts, mut executed) = (Vec::new(), 0, 0);
        while expected.len() < 12 {
            // As many drafts as there is room for, but for the last token, which cannot be one.
            let length = (12 - expected.len() - 1).min(3);
            let right =
                (0..length).take_while(|at| shallow[expected.len() + at] == full.tokens[expected.len() + at]);
            let right = right.count();
            executed += 3 * (length + 1);
            drafts += length;
            expected.extend(std::iter::repeat_n(2, right));
            expected.push(3);
        }
        assert_eq!(drafted.exit_layers, expected, "seed {seed}");
        assert_eq!(drafted.executed_layers, executed, "seed {seed}, {drafts} drafts");
    }
}

/// The best tokens of a layer along an output of the full model.
fn layer_tokens(toy: &Toy, output: &[Token], source: &[Token], layer: usize) -> Vec<Token> {
    let source = toy.source_states(source);
    let mut kv: Vec<Vec<_>> = vec![Vec::new(); layer];
    let inputs = std::iter::once(&crate::toy::START).chain(output);
    let of_input = |&input: &Token| {
        let mut state = toy.embed(input);
        for number in 1..=layer {
            kv[number - 1].push(toy.key_value(number, &state));
            state = toy.block(number, &state, &kv[number - 1], &source);
        }
        crate::toy::argmax(&toy.logits(&state))
    };
    inputs.take(output.len()).map(of_input).collect()
}
