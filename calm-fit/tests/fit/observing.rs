use calm_checkpoint::{LoadOptions, Model, T5Config};
use calm_core::{Backbone, DecodeOptions, Exits, PolicySpec, Token, decode};
use calm_cpu::{T5, Weights};
use calm_fit::{Observations, observe};

use crate::made_up::base_of;

const MAX_TOKENS: usize = 6;

/// A network of random weights with four decoder layers and more tokens than a shortlist has.
fn network() -> T5 {
    let config = T5Config {
        d_model: 16,
        d_kv: 8,
        d_ff: 24,
        num_layers: 1,
        num_decoder_layers: Some(4),
        num_heads: 2,
        vocab_size: 150,
        ..T5Config::published("t5-v1_1-small").unwrap()
    };
    T5::new(&config, &Weights::random(&config, 5), &LoadOptions::default()).unwrap()
}

fn sources() -> Vec<Vec<Token>> {
    (0..11).map(|index| (0..=index % 4).map(|place| 2 + 7 * index + place).chain([1]).collect()).collect()
}

fn observed(workers: usize, batch_size: usize) -> Observations {
    let network = network();
    let mut models: Vec<Box<dyn Model>> = (0..workers).map(|_| network.share(1)).collect();
    observe(&mut models, &sources(), batch_size, MAX_TOKENS, &[]).unwrap()
}

#[test]
fn batches_and_workers_change_nothing() {
    let expected = observed(1, 1);
    assert_eq!(observed(1, 4), expected);
    assert_eq!(observed(2, 3), expected);
}

/// The readings at one layer are what a policy that tests there alone sees; after a first test at layer 2
/// those of layer 3 are among the tokens that were best there.
#[test]
fn readings_are_what_policies_see() {
    let observations = observed(1, 4);
    assert!(observations.tokens() > 30);
    let network = network();
    for (source, tokens) in sources().iter().zip(&observations.examples) {
        let prompt = network.read(&[source]).unwrap();
        let options = DecodeOptions::new(MAX_TOKENS);
        let full = decode(&*prompt, &*PolicySpec::full().make(&network).unwrap(), &options).unwrap();
        assert_eq!(full[0].tokens.len(), tokens.len());
        for layer in 1..4 {
            // The first token of an output is the only one whose past is the same for all policies.
            let exits = Exits::new(&[layer]).unwrap();
            let place = observations.place(base_of("agreement"), exits, layer).unwrap();
            let spec: PolicySpec = format!("calm-softmax-0-exits{exits}").parse().unwrap();
            let policy = spec.make(&network).unwrap();
            let early = &decode(&*prompt, &*policy, &DecodeOptions::new(1)).unwrap()[0];
            let reading = tokens[0][place];
            assert!((early.confidence[0].unwrap() - reading.confidence).abs() < 0.05);
            assert_eq!(early.tokens[0] == full[0].tokens[0], reading.agrees);
            // A shortlist sees the whole vocabulary at its first test.
            let first = observations.place(base_of("agreement_pruned"), exits, layer).unwrap();
            assert_eq!(tokens[0][first], reading);
        }
    }
    let places = [[1, 2], [1, 3], [2, 3]].map(|[first, layer]| {
        let exits = Exits::new(&[first, layer]).unwrap();
        observations.place(base_of("agreement_pruned"), exits, layer).unwrap()
    });
    assert!(places[0] < places[1] && places[1] < places[2]);
    let twice = Exits::new(&[1, 2, 3]).unwrap();
    assert_eq!(observations.place(base_of("agreement_pruned"), twice, 3), Some(places[1]));
    assert_eq!(observations.place(base_of("agreement_pruned"), twice, 4), None);
}
