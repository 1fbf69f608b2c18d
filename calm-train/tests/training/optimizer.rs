use std::collections::BTreeMap;

use calm_model::Weights;
use calm_train::optimizer::{Optimizer, RestoreError};
use calm_train::parameters::Parameters;
use calm_train::{OptimizerConfig, OptimizerKind};
use serde::Deserialize;
use tch::{Device, Kind, Tensor};

#[derive(Deserialize)]
struct Golden {
    config: OptimizerConfig,
    #[serde(default = "matrix_and_vector")]
    shapes: BTreeMap<String, Vec<i64>>,
    /// The values of all tensors, in the order of their names.
    start: Vec<f32>,
    steps: Vec<GoldenStep>,
}

#[derive(Deserialize)]
struct GoldenStep {
    learning_rate: f64,
    gradient: Vec<f32>,
    norm: f64,
    parameters: Vec<f64>,
}

fn matrix_and_vector() -> BTreeMap<String, Vec<i64>> {
    BTreeMap::from([("matrix".to_owned(), vec![2, 3]), ("vector".to_owned(), vec![3])])
}

fn goldens(kind: OptimizerKind) -> Vec<Golden> {
    tch::set_num_threads(1);
    let text = match kind {
        OptimizerKind::AdamW => include_str!("../golden/adamw.json"),
        OptimizerKind::Adafactor => include_str!("../golden/adafactor.json"),
    };
    let goldens: Vec<Golden> = serde_json::from_str(text).unwrap();
    assert!(goldens.iter().all(|golden| golden.config.kind == kind));
    goldens
}

/// The goldens of both kinds, each with an average of the parameters and without.
fn all_goldens() -> impl Iterator<Item = Golden> {
    OptimizerKind::ALL.iter().flat_map(|&kind| {
        [None, Some(0.7)].into_iter().flat_map(move |ema_decay| {
            goldens(kind).into_iter().map(move |mut golden| {
                golden.config.ema_decay = ema_decay;
                golden
            })
        })
    })
}

impl Golden {
    fn split(&self, values: &[f32]) -> BTreeMap<String, Tensor> {
        let mut rest = values;
        let tensors = self.shapes.iter().map(|(name, shape)| {
            let (tensor, after) = rest.split_at(shape.iter().product::<i64>() as usize);
            rest = after;
            (name.clone(), Tensor::from_slice(tensor).view(shape.as_slice()))
        });
        tensors.collect()
    }

    fn parameters(&self, values: &[f32]) -> Parameters {
        Parameters::separate(&Weights::new(self.split(values)), Device::Cpu)
    }

    /// Makes the gradient by autograd: the gradient of sum(g * p) is g.
    fn step(
        &self,
        optimizer: &mut Optimizer,
        parameters: &Parameters,
        gradient: &[f32],
        learning_rate: f64,
    ) -> f64 {
        let gradient = self.split(gradient);
        let weights = parameters.cast(Kind::Float);
        let products: Vec<Tensor> =
            weights.iter().map(|(name, parameter)| parameter * &gradient[name]).collect();
        let gradients = parameters.gradients(&products);
        optimizer.step(parameters, &gradients, learning_rate).double_value(&[])
    }
}

fn values(weights: &Weights) -> Vec<f32> {
    let values = |tensor: &Tensor| Vec::<f32>::try_from(tensor.contiguous().view(-1)).unwrap();
    weights.iter().flat_map(|(_, tensor)| values(tensor)).collect()
}

fn saved_state(optimizer: &Optimizer, parameters: &Parameters) -> BTreeMap<String, Tensor> {
    optimizer.state(parameters).into_iter().map(|(name, tensor)| (name, tensor.copy())).collect()
}

#[test]
fn steps_are_those_of_the_references() {
    for (kind, cases, tolerance) in [(OptimizerKind::AdamW, 2, 2e-6), (OptimizerKind::Adafactor, 5, 1e-6)] {
        let goldens = goldens(kind);
        assert_eq!(goldens.len(), cases);
        for (case, golden) in goldens.iter().enumerate() {
            let parameters = golden.parameters(&golden.start);
            let mut optimizer = Optimizer::new(&golden.config, &parameters);
            for (number, expected) in (1..).zip(&golden.steps) {
                let context = format!("{kind} {case}, step {number}");
                let norm =
                    golden.step(&mut optimizer, &parameters, &expected.gradient, expected.learning_rate);
                let difference = (norm - expected.norm).abs() / expected.norm;
                assert!(difference < 1e-5, "{context}: norm {norm}, not {}", expected.norm);
                let found = values(&parameters.weights());
                assert_eq!(found.len(), expected.parameters.len());
                for (index, (found, expected)) in found.iter().zip(&expected.parameters).enumerate() {
                    let difference = (f64::from(*found) - expected).abs();
                    assert!(difference < tolerance, "{context}, {index}: {found}, not {expected}");
                }
            }
        }
    }
}

#[test]
fn only_matrices_decay() {
    for mut golden in all_goldens() {
        golden.config.weight_decay = Some(0.1);
        let parameters = golden.parameters(&golden.start);
        let mut optimizer = Optimizer::new(&golden.config, &parameters);
        let zeros = vec![0.0; golden.start.len()];
        assert_eq!(golden.step(&mut optimizer, &parameters, &zeros, 0.5), 0.0);
        let start = golden.split(&golden.start);
        for (name, tensor) in parameters.weights().iter() {
            let decay = if tensor.dim() > 1 { 0.5 * 0.1 } else { 0.0 };
            let difference = (tensor - &start[name] * (1.0 - decay)).abs().max().double_value(&[]);
            assert!(difference < 1e-6, "{name}: {difference}");
        }
    }
}

#[test]
fn weights_decay_unless_adafactor_is_left_to_its_default() {
    for &kind in OptimizerKind::ALL {
        let golden = goldens(kind).swap_remove(0);
        let config = OptimizerConfig { kind, ..OptimizerConfig::default() };
        let parameters = golden.parameters(&golden.start);
        let zeros = vec![0.0; golden.start.len()];
        golden.step(&mut Optimizer::new(&config, &parameters), &parameters, &zeros, 0.5);
        assert_eq!(values(&parameters.weights()) == golden.start, kind == OptimizerKind::Adafactor);
    }
}

#[test]
fn a_step_clears_the_gradients() {
    for golden in all_goldens() {
        let parameters = golden.parameters(&golden.start);
        let mut optimizer = Optimizer::new(&golden.config, &parameters);
        let gradient = &golden.steps[0].gradient;
        let first = golden.step(&mut optimizer, &parameters, gradient, 0.1);
        assert_eq!(first, golden.step(&mut optimizer, &parameters, gradient, 0.1));
    }
}

/// The second moments of a matrix are a row and a column, whatever its size.
#[test]
fn adafactor_remembers_means_of_rows_and_columns() {
    let golden = goldens(OptimizerKind::Adafactor).swap_remove(0);
    let parameters = golden.parameters(&golden.start);
    for beta1 in [None, Some(0.9)] {
        let config = OptimizerConfig { beta1, ..golden.config.clone() };
        let state = saved_state(&Optimizer::new(&config, &parameters), &parameters);
        for (name, shape) in &golden.shapes {
            let size = |moment: &str| state.get(&format!("adafactor.{moment}.{name}")).map(Tensor::size);
            let (outer, matrix) = shape.split_at(shape.len().saturating_sub(2));
            let factors = match matrix {
                [rows, columns] => {
                    (Some([outer, &[*rows]].concat()), Some([outer, &[*columns]].concat()), None)
                }
                _ => (None, None, Some(shape.clone())),
            };
            assert_eq!((size("row"), size("column"), size("square")), factors, "{name}");
            assert_eq!(size("mean"), beta1.map(|_| shape.clone()), "{name}");
        }
    }
}

#[test]
fn a_restored_optimizer_goes_on_bit_for_bit() {
    for golden in all_goldens() {
        let (before, after) = golden.steps.split_at(3);
        let straight = golden.parameters(&golden.start);
        let mut optimizer = Optimizer::new(&golden.config, &straight);
        for expected in before {
            golden.step(&mut optimizer, &straight, &expected.gradient, expected.learning_rate);
        }
        let mut saved = saved_state(&optimizer, &straight);
        let resumed = golden.parameters(&values(&straight.weights()));
        let mut restored = Optimizer::new(&golden.config, &resumed);
        restored.restore(&resumed, &mut saved, before.len() as u64).unwrap();
        assert!(saved.is_empty());
        for expected in after {
            golden.step(&mut optimizer, &straight, &expected.gradient, expected.learning_rate);
            golden.step(&mut restored, &resumed, &expected.gradient, expected.learning_rate);
            assert_eq!(values(&straight.weights()), values(&resumed.weights()));
            let averages = [(&optimizer, &straight), (&restored, &resumed)]
                .map(|(optimizer, parameters)| values(&optimizer.evaluation_parameters(parameters)));
            assert_eq!(averages[0], averages[1]);
        }
    }
}

#[test]
fn states_that_do_not_fit_are_named() {
    let tensor = |name: &str| RestoreError::Tensor { name: name.to_owned() };
    for (kind, missing, reshaped) in [
        (OptimizerKind::AdamW, "adam.square.matrix", "adam.mean.vector"),
        (OptimizerKind::Adafactor, "adafactor.column.matrix", "adafactor.square.vector"),
    ] {
        let golden = goldens(kind).swap_remove(0);
        let parameters = golden.parameters(&golden.start);
        let config = |kind, ema_decay| OptimizerConfig { kind, ema_decay, ..OptimizerConfig::default() };
        let optimizer = |kind, ema_decay| Optimizer::new(&config(kind, ema_decay), &parameters);
        let restored = |kind, ema_decay, state: &mut BTreeMap<String, Tensor>| {
            optimizer(kind, ema_decay).restore(&parameters, state, 1).unwrap_err()
        };
        let mut state = saved_state(&optimizer(kind, None), &parameters);
        state.remove(missing);
        assert_eq!(restored(kind, None, &mut state), tensor(missing));
        let mut state = saved_state(&optimizer(kind, None), &parameters);
        state.insert(reshaped.to_owned(), Tensor::from_slice(&[1f32]));
        assert_eq!(restored(kind, None, &mut state), tensor(reshaped));
        let mut state = saved_state(&optimizer(kind, Some(0.9)), &parameters);
        state.remove("ema.vector");
        assert_eq!(restored(kind, Some(0.9), &mut state), tensor("ema.vector"));

        let mut state = saved_state(&optimizer(kind, None), &parameters);
        assert_eq!(restored(kind, Some(0.9), &mut state), RestoreError::NoAverage);
        let mut state = saved_state(&optimizer(kind, Some(0.9)), &parameters);
        assert_eq!(restored(kind, None, &mut state), RestoreError::UnwantedAverage);

        let expected = OptimizerKind::ALL.iter().copied().find(|other| *other != kind).unwrap();
        let mut state = saved_state(&optimizer(kind, None), &parameters);
        let error = restored(expected, None, &mut state);
        assert_eq!(error, RestoreError::Kind { found: kind, expected });
        assert_eq!(error.to_string(), format!("its optimiser is {kind}, not {expected}"));
    }
}

/// Computes the averages, after each step, of a parameter that starts at 1 and moves by `slope` in each step.
///
/// Without memory of earlier gradients, AdamW's update is the sign of the gradient, so that a constant
/// gradient of -slope at a learning rate of |slope| moves it that way.
fn averages(slope: f64, decay: f64, steps: u64) -> Vec<f64> {
    tch::set_num_threads(1);
    let config = OptimizerConfig {
        ema_decay: Some(decay),
        beta1: Some(0.0),
        beta2: Some(0.0),
        ..OptimizerConfig::default()
    };
    let weights = Weights::new(BTreeMap::from([("parameter".to_owned(), Tensor::from_slice(&[1f32]))]));
    let parameters = Parameters::separate(&weights, Device::Cpu);
    let mut optimizer = Optimizer::new(&config, &parameters);
    let step = |_| {
        let weights = parameters.cast(Kind::Float);
        let gradients = parameters.gradients(&[weights.get("parameter").unwrap() * -slope]);
        let _norm = optimizer.step(&parameters, &gradients, slope.abs());
        f64::from(values(&optimizer.evaluation_parameters(&parameters))[0])
    };
    (1..=steps).map(step).collect()
}

#[test]
fn the_average_of_a_constant_is_the_constant() {
    for decay in [0.0, 0.15, 0.9, 0.9999] {
        assert_eq!(averages(0.0, decay, 30), [1.0; 30]);
    }
}

/// The average lags behind p_t = 1 + b t by e_t = d_t (e_{t-1} + b), with e_0 = 0.
#[test]
fn the_average_of_a_line_lags_behind_it() {
    const SLOPE: f64 = 0.25;
    let check = |decay: f64, lag: &dyn Fn(f64) -> f64| {
        for (t, found) in (1..).zip(averages(SLOPE, decay, 30)) {
            let t = f64::from(t);
            let expected = 1.0 + SLOPE * t - lag(t);
            assert!((found - expected).abs() < 2e-6, "decay {decay}, step {t}: {found}, not {expected}");
        }
    };
    // Below 2/11 the warm-up never counts: e_t = b d (1 - d^t) / (1 - d).
    for decay in [0.0, 0.1, 0.18] {
        check(decay, &|t| SLOPE * decay * (1.0 - decay.powf(t)) / (1.0 - decay));
    }
    // In the warm-up d_t = (1 + t) / (10 + t), so that e_t = b / 10 (t + 1 - d_1 .. d_t).
    check(0.9999, &|t| {
        let product: f64 = (1..=t as u32).map(|s| f64::from(1 + s) / f64::from(10 + s)).product();
        SLOPE / 10.0 * (t + 1.0 - product)
    });
}

#[test]
fn without_an_average_the_parameters_themselves_are_evaluated() {
    let golden = goldens(OptimizerKind::AdamW).swap_remove(0);
    let parameters = golden.parameters(&golden.start);
    let optimizer = Optimizer::new(&golden.config, &parameters);
    assert_eq!(values(&optimizer.evaluation_parameters(&parameters)), golden.start);
}
