use std::collections::BTreeMap;

use calm_checkpoint::{SpecialTokens, T5Config};
use calm_model::{Dropout, T5, TeacherForcing, Weights, init};
use calm_train::batches::{FrameTokens, collate};
use calm_train::objective::skip_probabilities;
use calm_train::optimizer::Optimizer;
use calm_train::parameters::{Gradients, Parameters};
use calm_train::step::{StepConfig, batch_gradient};
use calm_train::tokens::TokenPair;
use calm_train::{ModelConfig, ObjectiveConfig, OptimizerConfig, Precision};
use tch::{Device, Kind, Reduction, Tensor};

use crate::tiny::alone;

fn probabilities(layer_dropout: f64, layers: usize) -> Vec<f64> {
    skip_probabilities(&ObjectiveConfig { layer_dropout, ..ObjectiveConfig::default() }, layers)
}

fn t5_config(layers: i64) -> T5Config {
    let model = ModelConfig {
        d_model: 16,
        d_kv: 8,
        d_ff: 24,
        num_heads: 2,
        num_layers: 1,
        num_decoder_layers: layers,
        tie_word_embeddings: true,
    };
    model.t5_config(50, SpecialTokens { pad: 0, end: 1 })
}

fn model(layers: i64) -> T5 {
    let config = t5_config(layers);
    tch::no_grad(|| T5::new(&config, &init::random_weights(&config, 1))).unwrap()
}

/// Makes random sources, their lengths, and decoder inputs.
fn tokens(rows: i64) -> [Tensor; 3] {
    let options = (Kind::Int64, Device::Cpu);
    let [sources, inputs] = [5, 3].map(|length| Tensor::randint_low(2, 50, [rows, length], options));
    [sources, Tensor::full([rows], 5, options), inputs]
}

fn states(
    model: &T5,
    [sources, source_lengths, decoder_inputs]: &[Tensor; 3],
    dropout: &Dropout,
) -> Vec<Tensor> {
    model.decoder_states(&TeacherForcing { sources, source_lengths, decoder_inputs, dropout })
}

/// Tells of each row whether two states [rows, length, d_model] are the same in it.
fn same_rows(a: &Tensor, b: &Tensor) -> Vec<bool> {
    let differences = (a - b).abs().amax([1i64, 2].as_slice(), false);
    Vec::<f32>::try_from(differences).unwrap().into_iter().map(|difference| difference == 0.0).collect()
}

/// The values are exp(l ln 2 / (L - 1)) - 1, computed with bc.
#[test]
fn the_last_layer_is_skipped_most_often_and_the_first_one_never() {
    for (layer_dropout, expected) in [
        (0.3, vec![0.0]),
        (0.3, vec![0.0, 0.3]),
        (0.1, vec![0.0, 0.0414213562373, 0.1]),
        (0.2, vec![0.0, 0.0378414230005, 0.0828427124746, 0.1363585661015, 0.2]),
        (
            0.5,
            vec![
                0.0,
                0.0520447568369,
                0.1095068271022,
                0.1729500963162,
                0.2429971445685,
                0.3203353560076,
                0.4057236642639,
                0.5,
            ],
        ),
        (0.0, vec![0.0; 6]),
    ] {
        let found = probabilities(layer_dropout, expected.len());
        assert_eq!(found.len(), expected.len());
        for (found, value) in found.iter().zip(&expected) {
            assert!((found - value).abs() < 1e-12, "{found}, not {value}, of {expected:?}");
        }
    }
}

/// Five standard deviations of independent draws are a bound that the fixed seed keeps.
#[test]
fn each_row_skips_layers_of_its_own() {
    const ROWS: i64 = 2_000;
    let _alone = alone();
    tch::set_num_threads(1);
    let model = model(4);
    let tokens = tokens(ROWS);
    let full = states(&model, &tokens, &Dropout::off());
    let probabilities = probabilities(0.9, 4);
    tch::manual_seed(5);
    let found = states(&model, &tokens, &Dropout::off().skipping_layers(probabilities.clone()));
    assert_eq!(found[0], full[0]);

    let skipped: Vec<Vec<bool>> = found.windows(2).map(|pair| same_rows(&pair[1], &pair[0])).collect();
    let check = |what: &str, skips: usize, probability: f64| {
        let expected = probability * ROWS as f64;
        let deviation = (expected * (1.0 - probability)).sqrt();
        assert!((skips as f64 - expected).abs() < 5.0 * deviation, "{what}: {skips}, not {expected}");
    };
    for (layer, of_layer) in (1..).zip(&skipped) {
        let skips = of_layer.iter().filter(|skips| **skips).count();
        check(&format!("layer {layer}"), skips, probabilities[layer]);
    }
    for (layer, pair) in (1..).zip(skipped.windows(2)) {
        let both = pair[0].iter().zip(&pair[1]).filter(|(a, b)| **a && **b).count();
        check(&format!("layer {layer} and the next"), both, probabilities[layer] * probabilities[layer + 1]);
    }
    // A row that skips nothing does not notice that others do.
    let mut whole = 0;
    for (row, same) in same_rows(&found[3], &full[3]).into_iter().enumerate() {
        let runs_all = skipped.iter().all(|of_layer| !of_layer[row]);
        assert_eq!(same, runs_all, "row {row}");
        whole += usize::from(runs_all);
    }
    assert!(whole > 0);
}

#[test]
fn a_skipped_layer_might_as_well_not_be_there() {
    let _alone = alone();
    tch::set_num_threads(1);
    let config = t5_config(3);
    let weights = init::random_weights(&config, 1);
    let with_all = tch::no_grad(|| T5::new(&config, &weights)).unwrap();
    let others: BTreeMap<String, Tensor> = weights
        .iter()
        .filter(|(name, _)| !name.starts_with("decoder.block.1."))
        .map(|(name, tensor)| (name.replace("decoder.block.2.", "decoder.block.1."), tensor.shallow_clone()))
        .collect();
    let without = tch::no_grad(|| T5::new(&t5_config(2), &Weights::new(others))).unwrap();
    let tokens = tokens(7);
    let found = states(&with_all, &tokens, &Dropout::off().skipping_layers(vec![0.0, 1.0, 0.0]));
    let expected = states(&without, &tokens, &Dropout::off());
    assert_eq!([&found[0], &found[1], &found[2]], [&expected[0], &expected[0], &expected[1]]);
}

/// The number that is drawn next shows that nothing was drawn for layers.
#[test]
fn without_layer_dropout_a_pass_is_as_it_was() {
    let _alone = alone();
    tch::set_num_threads(1);
    let model = model(3);
    let tokens = tokens(9);
    let pass = |skips: Option<Vec<f64>>| {
        tch::manual_seed(3);
        let dropout = model.dropout(0.25, &tokens[0], &tokens[2], 0);
        let dropout = match skips {
            Some(skips) => dropout.skipping_layers(skips),
            None => dropout,
        };
        let mut states = states(&model, &tokens, &dropout);
        states.push(Tensor::rand([1], (Kind::Float, Device::Cpu)));
        states
    };
    assert_eq!(pass(None), pass(Some(probabilities(0.0, 3))));
    assert_ne!(pass(None), pass(Some(probabilities(0.5, 3))));
}

/// Autograd gives the gradient from the whole loss at once, with the same seed.
#[test]
fn a_step_follows_the_loss_of_the_layers_that_rows_run() {
    let _alone = alone();
    tch::set_num_threads(1);
    let t5_config = t5_config(3);
    let parameters =
        Parameters::of_network(&t5_config, &init::random_weights(&t5_config, 1), Device::Cpu).unwrap();
    let pair = |row: u32| TokenPair {
        source: (0..5).map(|i| 2 + (7 * row + i) % 48).collect(),
        target: (0..4).map(|i| 2 + (5 * row + 3 * i) % 48).collect(),
    };
    let batch = collate(&(0..20).map(pair).collect::<Vec<_>>(), FrameTokens { start: 0, pad: 0 });
    let objective = ObjectiveConfig { dropout: 0.0, layer_dropout: 0.9, ..ObjectiveConfig::default() };
    let config =
        StepConfig { t5_config: &t5_config, precision: Precision::F32, objective: &objective, seed: 1 };
    // The mean of gradients after one step shows a gradient by the names of the parameters.
    let by_name = |gradients: &Gradients| {
        let config = OptimizerConfig { clip_norm: 1e9, ..OptimizerConfig::default() };
        let mut optimizer = Optimizer::new(&config, &parameters);
        let _norm = optimizer.step(&parameters, gradients, 0.0);
        let state = optimizer.state(&parameters).into_iter();
        state.filter(|(name, _)| name.starts_with("adam.mean.")).collect::<BTreeMap<_, _>>()
    };

    tch::manual_seed(4);
    let step = batch_gradient(&config, &parameters, &batch, 1, batch.target_tokens).unwrap();
    let found = by_name(&step.gradients);

    let model = T5::new(&t5_config, &parameters.cast(Kind::Float)).unwrap();
    let tokens = [&batch.sources, &batch.source_lengths, &batch.decoder_inputs].map(Tensor::shallow_clone);
    tch::manual_seed(4);
    let states = states(&model, &tokens, &Dropout::off().skipping_layers(probabilities(0.9, 3)));
    let skipped = same_rows(&states[2], &states[1]).iter().filter(|skips| **skips).count();
    assert!((1..20).contains(&skipped), "{skipped} of 20 rows skip the last layer");
    let losses: Vec<Tensor> = (1..)
        .zip(&states)
        .map(|(layer, state)| {
            let inputs = model.head_input(state).flatten(0, 1).index_select(0, &batch.positions);
            let logits = inputs.linear(model.head(), None::<&Tensor>);
            let loss = logits.cross_entropy_loss::<Tensor>(&batch.targets, None, Reduction::Mean, -100, 0.0);
            loss * (f64::from(layer) / 6.0)
        })
        .collect();
    let expected = by_name(&parameters.gradients(&losses));
    assert!(expected.len() > 10);
    for (name, expected) in &expected {
        let difference = (&found[name] - expected).abs().max().double_value(&[]);
        let size = expected.abs().max().double_value(&[]);
        assert!(size > 0.0 && difference <= 1e-4 * size, "{name}: {difference} of {size}");
    }
}
