//! The cost model against numbers worked out by hand and against the paper's Table 2.

use calm_core::{BackboneShape, CostModel, Measure, MeasureInputs};

/// d = 4, attention 6 wide, V = 10.
fn small(gated: bool) -> BackboneShape {
    BackboneShape {
        num_encoder_layers: 2,
        num_decoder_layers: 2,
        d_model: 4,
        inner: 6,
        d_ff: 8,
        gated,
        vocab_size: 10,
        start_token: 0,
        eos_token: 1,
    }
}

/// | term | arithmetic |
/// |---|---|
/// | block, t = 3, x = 5, gated | 12 * 4*6 = 288, 2 * 3 * 4*8 = 192, 4 * 3 * 6 = 72, 4 * 5 * 6 = 120: 672 |
/// | block, not gated | 2 * 2 * 4*8 = 128 instead of 192: 608 |
/// | block, as published | 12 * 4*4 = 192, 4 * 4*8 = 128, 4 * 3 * 4 = 48, 4 * 5 * 4 = 80: 448 |
/// | cross-attention keys | 4 * 5 * 4*6 = 480; as published 4 * 5 * 4*4 = 320 |
/// | skipped block | 4 * 4*6 = 96; as published 4 * 4*4 = 64 |
/// | head | 2 * 10 * 4 = 80 |
#[test]
fn terms() {
    let check = |model: CostModel, block: f64, keys: f64, skipped: f64| {
        assert_eq!(model.block(3, 5), block);
        assert_eq!(model.cross_attention_keys(5), keys);
        assert_eq!(model.skipped_block(), skipped);
        assert_eq!(model.head(), 80.0);
    };
    check(CostModel::new(&small(true)), 672.0, 480.0, 96.0);
    check(CostModel::new(&small(false)), 608.0, 480.0, 96.0);
    check(CostModel::as_published(&small(true)), 448.0, 320.0, 64.0);
}

/// Two layers, x = 5, and blocks of 288 + 192 + 4 (t + 5) 6 = 624 for the first token (t = 1) and 648 for the
/// second.
///
/// | exits | arithmetic |
/// |---|---|
/// | 1, 2 | 624 + 96 + 80 = 800, 2 * 648 + 80 = 1376, keys of two blocks 960: 3136 |
/// | 1, 2 softmax | the head runs once a layer, so the second token has one more: 3136 + 80 = 3216 |
/// | 1, 2 classifier | one test a token, none after the last layer, 2 * 4 each: 3136 + 16 = 3152 |
/// | 1, 2 state | 6 * 4 each: 3136 + 48 = 3184 |
/// | 1, 1 | 624 + 96 + 80 = 800, 648 + 96 + 80 = 824, keys of one block 480: 2104 |
/// | 2, 2 | 2 * 624 + 80 = 1328, 2 * 648 + 80 = 1376, keys of two blocks 960: 3664 |
#[test]
fn sequences() {
    let model = CostModel::new(&small(true));
    let check = |exits: &[usize], test: Option<MeasureInputs>, flops: f64| {
        assert_eq!(model.sequence(exits, 5, test), flops, "{exits:?} {test:?}");
    };
    check(&[], None, 0.0);
    check(&[1, 2], None, 3136.0);
    check(&[1, 2], Some(Measure::Softmax.inputs()), 3216.0);
    check(&[1, 2], Some(MeasureInputs { logits: true, ..MeasureInputs::default() }), 3216.0);
    check(&[1, 2], Some(Measure::Classifier.inputs()), 3152.0);
    check(&[1, 2], Some(Measure::State.inputs()), 3184.0);
    check(&[1, 1], None, 2104.0);
    check(&[2, 2], None, 3664.0);
    assert_eq!(model.full_sequence(2, 5), 3664.0);
    assert_eq!(model.full_sequence(0, 5), 0.0);
}

/// How many times fewer FLOPs than the full model: CNN/DM in Table 2 of the paper, for T5 1.1 small, with 512
/// source tokens and the 82 target tokens of Table 1. The softmax column is left out: it does not follow from
/// its formula.
#[test]
fn reductions_of_the_paper() {
    let shape = BackboneShape {
        num_encoder_layers: 8,
        num_decoder_layers: 8,
        d_model: 512,
        inner: 384,
        d_ff: 1024,
        gated: true,
        vocab_size: 32_128,
        start_token: 0,
        eos_token: 1,
    };
    let model = CostModel::as_published(&shape);
    let check = |measure: Measure, layers: f64, reduction: f64| {
        // Whole layers of that mean, one of them the last so that all cross-attention keys are computed.
        let up_to = |t: usize| (t as f64 * layers).round() as usize;
        let mut exits: Vec<usize> = (0..82).map(|t| up_to(t + 1) - up_to(t)).collect();
        exits[40] = 8;
        let found = model.full_sequence(82, 512) / model.sequence(&exits, 512, Some(measure.inputs()));
        assert!((found - reduction).abs() < 0.04, "{measure} {layers}: {found} instead of {reduction}");
    };
    check(Measure::Classifier, 7.16, 1.03);
    check(Measure::Classifier, 6.49, 1.06);
    check(Measure::Classifier, 4.51, 1.15);
    check(Measure::Classifier, 2.30, 1.25);
    check(Measure::State, 7.97, 1.00);
    check(Measure::State, 5.22, 1.11);
}
