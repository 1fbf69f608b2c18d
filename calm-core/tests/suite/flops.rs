//! The cost model against numbers worked out by hand.

use calm_core::{BackboneShape, Cost, Generation, PolicySpec};

/// Two layers, d = 4, attention 6 wide, a gated feed-forward network of 8, V = 10.
///
/// | term | arithmetic |
/// |---|---|
/// | layer | 12 * 4*6 = 288, 2 * 3 * 4*8 = 192: 480 |
/// | for each key, and each source token | 4 * 6 = 24 |
/// | cross-attention keys of a source token | 4 * 4*6 = 96 |
/// | skipped layer | 4 * 4*6 = 96 |
/// | head | 2 * 10 * 4 = 80 |
/// | exit head | 100, whatever it is made of |
fn small() -> BackboneShape {
    BackboneShape {
        num_layers: 2,
        d_model: 4,
        vocab_size: 10,
        eos_tokens: vec![1],
        flops: Cost {
            layer: 480.0,
            layer_per_key: 24.0,
            layer_per_source_token: 24.0,
            first_reach_per_source_token: 96.0,
            skipped_layer: 96.0,
            head: 80.0,
            exit_head: 100.0,
        },
        bytes: Cost::default(),
    }
}

/// Five source tokens, so that a layer takes 480 + 24 (t + 5) = 624 for the first token (t = 1) and 648 for
/// the second.
///
/// | exits | arithmetic |
/// |---|---|
/// | 1, 2 | 624 + 96 + 80 = 800, 2 * 648 + 80 = 1376, keys of two layers 960: 3136 |
/// | 1, 2 softmax | the head runs once a layer, so the second token has one more: 3136 + 80 = 3216 |
/// | 1, 2 pruned | one more head for the second token, two tests of 2 * 64 * 4 = 512: 3136 + 80 + 1024 = 4240 |
/// | 1, 2 classifier | one test a token, none after the last layer, 2 * 4 each: 3136 + 16 = 3152 |
/// | 1, 2 state | 6 * 4 each: 3136 + 48 = 3184 |
/// | 1, 2 head_entropy, head_margin | an exit head a token, the head for the second: 3136 - 80 + 200 = 3256 |
/// | 1, 1 | 624 + 96 + 80 = 800, 648 + 96 + 80 = 824, keys of one layer 480: 2104 |
/// | 2, 2 | 2 * 624 + 80 = 1328, 2 * 648 + 80 = 1376, keys of two layers 960: 3664 |
#[test]
fn sequences() {
    let check = |policy: &str, exits: &[usize], flops: f64| {
        let spec: PolicySpec = policy.parse().unwrap();
        let generation = Generation { exit_layers: exits.to_vec(), ..Generation::default() };
        assert_eq!(small().sequence_flops(&spec, &generation, 5), flops, "{policy} {exits:?}");
    };
    check("full", &[], 0.0);
    check("oracle", &[1, 2], 3136.0);
    check("calm-softmax-0.5", &[1, 2], 3216.0);
    check("calm-softmax-1-tau4", &[2, 2], 3664.0);
    check("calm-pruned-0.5", &[1, 2], 4240.0);
    check("calm-classifier-0.5", &[1, 2], 3152.0);
    check("calm-state-0.5", &[1, 2], 3184.0);
    check("calm-head_entropy-0.5", &[1, 2], 3256.0);
    check("calm-head_margin-0.5", &[1, 2], 3256.0);
    check("static-1", &[1, 1], 2104.0);
    check("full", &[2, 2], 3664.0);
}

/// Where layers run later, they are counted as they ran, with (t + 1) / 2 = 2 keys of three tokens.
///
/// | exits, layer-tokens | arithmetic |
/// |---|---|
/// | shallow-deep 1, 2, 1; 5 | 5 * (480 + 24 (2 + 5)) = 3240, keys of two layers 960, heads 4 * 80: 4520 |
/// | shallow-deep 1, 1, 1; 3 | 3 * 648 = 1944, keys of one layer 480, heads 3 * 80: 2664 |
/// | self-speculative 1, 2, 2; 7 | 7 * 648 = 4536, keys of two layers 960, heads 4 * 80: 5816 |
#[test]
fn sequences_whose_layers_run_later() {
    let check = |policy: &str, exits: &[usize], executed_layers: usize, flops: f64| {
        let spec: PolicySpec = policy.parse().unwrap();
        let generation = Generation { exit_layers: exits.to_vec(), executed_layers, ..Generation::default() };
        assert_eq!(small().sequence_flops(&spec, &generation, 5), flops, "{policy} {exits:?}");
    };
    check("shallow-deep-1-0.5", &[1, 2, 1], 5, 4520.0);
    check("shallow-deep-1-0.5", &[1, 1, 1], 3, 2664.0);
    check("self-speculative", &[1, 2, 2], 7, 5816.0);
}
