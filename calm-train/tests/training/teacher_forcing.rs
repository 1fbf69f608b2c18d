//! Training and decoding are two implementations of one network.
//!
//! One computes all positions at once, the other one after the other.

use std::path::Path;

use calm_checkpoint::T5Config;
use calm_core::{PolicySpec, Token};
use calm_model::{Dropout, T5, TeacherForcing, Weights};
use calm_train::batches::{FrameTokens, collate};
use calm_train::tokens::TokenPair;
use serde::Deserialize;
use tch::{Device, Tensor};

#[derive(Deserialize)]
struct Cases {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    input_ids: Vec<Token>,
    policy: PolicySpec,
    tokens: Vec<Token>,
}

/// A static depth copies no state at the layers it runs.
///
/// So its decoding, and teacher forcing of its output, see the same states there. The decodings are those of
/// the reference implementation, by a batch of mixed lengths per depth.
#[test]
fn the_best_tokens_are_those_of_decoding() {
    tch::set_num_threads(1);
    for name in ["v1_0", "v1_1"] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../calm-model/tests/reference").join(name);
        let model = T5::load(&folder, Device::Cpu).unwrap();
        let text = std::fs::read_to_string(folder.join("cases.json")).unwrap();
        let cases = serde_json::from_str::<Cases>(&text).unwrap().cases;
        let layers = model.config().decoder_layers() as usize;
        for depth in 1..=layers {
            let of_depth = |policy: PolicySpec| {
                policy == PolicySpec::fixed(depth) || depth == layers && policy == PolicySpec::full()
            };
            let pairs: Vec<TokenPair> = cases
                .iter()
                .filter(|case| of_depth(case.policy))
                .map(|case| TokenPair { source: case.input_ids.clone(), target: case.tokens.clone() })
                .collect();
            assert!(pairs.len() >= 7, "{name} has {} cases of depth {depth}", pairs.len());
            let frame = FrameTokens { start: model.config().start_token(), pad: model.config().pad_token_id };
            let batch = collate(&pairs, frame);
            let states = model.decoder_states(&TeacherForcing {
                sources: &batch.sources,
                source_lengths: &batch.source_lengths,
                decoder_inputs: &batch.decoder_inputs,
                dropout: &Dropout::off(),
            });
            assert_eq!(states.len(), layers);
            let inputs = model.head_input(&states[depth - 1]).flatten(0, 1).index_select(0, &batch.positions);
            let best = inputs.linear(model.head(), None::<&Tensor>).argmax(-1, false);
            assert_eq!(best, batch.targets, "{name}, depth {depth}");
        }
    }
}

/// Sources are masked by their lengths, since a text may name the padding token, and since the token that
/// fills up batches may be one with a meaning of its own.
#[test]
fn the_padding_token_is_a_token_like_others_inside_a_source() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../calm-model/tests/reference/v1_1");
    let config = T5Config::load(&folder.join("config.json")).unwrap();
    let weights = Weights::load(&folder, &config, Device::Cpu).unwrap();
    let pairs = [
        TokenPair { source: vec![5, 0, 6, 1], target: vec![7, 8, 1] },
        TokenPair { source: vec![9, 1], target: vec![7, 1] },
    ];
    let states = |pad: u32| {
        let config = T5Config { pad_token_id: pad, decoder_start_token_id: Some(0), ..config.clone() };
        let model = T5::new(&config, &weights).unwrap();
        let batch = collate(&pairs, FrameTokens { start: 0, pad });
        let states = model.decoder_states(&TeacherForcing {
            sources: &batch.sources,
            source_lengths: &batch.source_lengths,
            decoder_inputs: &batch.decoder_inputs,
            dropout: &Dropout::off(),
        });
        states.last().unwrap().flatten(0, 1).index_select(0, &batch.positions)
    };
    let expected = states(0);
    for pad in [1, 6, 30] {
        assert_eq!(states(pad), expected, "{pad}");
    }
}
