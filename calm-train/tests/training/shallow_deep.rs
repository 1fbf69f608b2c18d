//! The objective of FREE: which layers teach, which learn from them, and the gradient.

use std::collections::BTreeMap;

use calm_checkpoint::SpecialTokens;
use calm_model::{Dropout, T5, TeacherForcing, init};
use calm_train::batches::{FrameTokens, collate};
use calm_train::objective::exits_of_step;
use calm_train::optimizer::Optimizer;
use calm_train::parameters::{Gradients, Parameters};
use calm_train::shallow_deep::{choose_students, teacher_layers};
use calm_train::step::{StepConfig, batch_gradient};
use calm_train::tokens::TokenPair;
use calm_train::{
    LayerMapping, ModelConfig, ObjectiveConfig, OptimizerConfig, Precision, ShallowDeepConfig, TrainConfig,
    TrainOptions, Trained, train,
};
use tch::{Device, Kind, Reduction, Tensor};

use crate::tiny::{Tiny, alone, configuration};

fn objective(layer: usize, mapping: LayerMapping) -> ObjectiveConfig {
    let shallow_deep = Some(ShallowDeepConfig { layer, distillation: 0.5, mapping });
    ObjectiveConfig { dropout: 0.0, shallow_deep, ..ObjectiveConfig::default() }
}

/// The subsets of the published code, which count from 0, and some that it lacks.
#[test]
fn teachers_are_spread_as_published() {
    let published: [(usize, usize, &[usize]); 6] = [
        (24, 12, &[1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23]),
        (24, 10, &[2, 5, 7, 10, 12, 15, 17, 19, 21, 23]),
        (24, 8, &[2, 5, 8, 11, 14, 17, 20, 23]),
        (24, 6, &[3, 7, 11, 15, 19, 23]),
        (24, 4, &[5, 11, 17, 23]),
        (12, 3, &[3, 7, 11]),
    ];
    for (layers, shallow, from_0) in published {
        let from_1: Vec<usize> = from_0.iter().map(|layer| layer + 1).collect();
        assert_eq!(teacher_layers(layers, shallow), from_1, "{shallow} of {layers}");
    }
    assert_eq!(teacher_layers(8, 4), [2, 4, 6, 8]);
    assert_eq!(teacher_layers(12, 6), [2, 4, 6, 8, 10, 12]);
    assert_eq!(teacher_layers(8, 3), [3, 6, 8]);
    assert_eq!(teacher_layers(2, 1), [2]);
    for layers in 2..30 {
        for shallow in 1..layers {
            let teachers = teacher_layers(layers, shallow);
            assert_eq!((teachers.len(), teachers.last()), (shallow, Some(&layers)));
            assert!(teachers.is_sorted_by(|a, b| a < b));
        }
    }
}

/// From the last row to the first: the least of those before the one that was taken, or the same one again.
#[test]
fn each_teacher_takes_the_nearest_student_below() {
    let check = |distances: &[&[f32]], expected: &[usize]| {
        let columns = distances[0].len();
        let tensor = Tensor::from_slice(&distances.concat()).view([-1, columns as i64]);
        let chosen = choose_students(&tensor);
        let rows: Vec<Vec<f32>> = Vec::try_from(chosen).unwrap();
        let of_row = |row: Vec<f32>| {
            assert_eq!(row.iter().sum::<f32>(), 1.0);
            row.iter().position(|&x| x == 1.0).unwrap()
        };
        assert_eq!(rows.into_iter().map(of_row).collect::<Vec<_>>(), expected, "{distances:?}");
    };
    check(&[&[1.0, 2.0, 3.0], &[2.0, 1.0, 3.0], &[3.0, 2.0, 1.0]], &[0, 1, 2]);
    // The last takes 1, so that the one before has 0 alone although 2 is nearer.
    check(&[&[5.0, 1.0, 1.0], &[9.0, 8.0, 1.0], &[3.0, 1.0, 2.0]], &[0, 0, 1]);
    // The last takes the first student, and there is none below.
    check(&[&[9.0, 1.0], &[1.0, 2.0]], &[0, 0]);
    // 3, then the least of 0 to 2, then of those below that.
    check(&[&[4.0, 3.0, 2.0, 1.0], &[4.0, 3.0, 3.0, 1.0], &[4.0, 3.0, 2.0, 1.0]], &[0, 1, 3]);
    check(&[&[7.0]], &[0]);
}

#[test]
fn the_two_exits_have_the_weights_of_their_depths() {
    let exits = exits_of_step(&objective(2, LayerMapping::Dynamic), 6, 1, 1);
    let found: Vec<(usize, f64)> = exits.iter().map(|exit| (exit.layer, exit.weight)).collect();
    assert_eq!(found, [(2, 0.25), (6, 0.75)]);
}

/// Autograd gives the gradient of the whole formula at once, written as it stands.
#[test]
fn a_step_follows_the_formula() {
    let _alone = alone();
    tch::set_num_threads(1);
    const LAYERS: usize = 6;
    const SHALLOW: usize = 3;
    for tie_word_embeddings in [false, true] {
        let model = ModelConfig {
            d_model: 16,
            d_kv: 8,
            d_ff: 24,
            num_heads: 2,
            num_layers: 1,
            num_decoder_layers: LAYERS as i64,
            tie_word_embeddings,
        };
        let t5_config = model.t5_config(50, SpecialTokens { pad: 0, end: 1 });
        let parameters =
            Parameters::of_network(&t5_config, &init::random_weights(&t5_config, 1), Device::Cpu).unwrap();
        let pair = |row: u32| TokenPair {
            source: (0..5).map(|i| 2 + (7 * row + i) % 48).collect(),
            target: (0..2 + row % 4).map(|i| 2 + (5 * row + 3 * i) % 48).collect(),
        };
        let batch = collate(&(0..9).map(pair).collect::<Vec<_>>(), FrameTokens { start: 0, pad: 0 });
        // The mean of gradients after one step shows a gradient by the names of the parameters.
        let by_name = |gradients: &Gradients| {
            let config = OptimizerConfig { clip_norm: 1e9, ..OptimizerConfig::default() };
            let mut optimizer = Optimizer::new(&config, &parameters);
            let _norm = optimizer.step(&parameters, gradients, 0.0);
            let state = optimizer.state(&parameters).into_iter();
            state.filter(|(name, _)| name.starts_with("adam.mean.")).collect::<BTreeMap<_, _>>()
        };
        for mapping in [LayerMapping::Dynamic, LayerMapping::Uniform, LayerMapping::Last] {
            let objective = objective(SHALLOW, mapping);
            let config = StepConfig {
                t5_config: &t5_config,
                precision: Precision::F32,
                objective: &objective,
                seed: 1,
            };
            let step = batch_gradient(&config, &parameters, &batch, 1, batch.target_tokens).unwrap();
            assert_eq!(step.layers, [SHALLOW, LAYERS]);
            let found = by_name(&step.gradients);

            let model = T5::new(&t5_config, &parameters.cast(Kind::Float)).unwrap();
            let states = model.decoder_states(&TeacherForcing {
                sources: &batch.sources,
                source_lengths: &batch.source_lengths,
                decoder_inputs: &batch.decoder_inputs,
                dropout: &Dropout::off(),
            });
            let inputs: Vec<Tensor> = states
                .iter()
                .map(|state| model.head_input(state).flatten(0, 1).index_select(0, &batch.positions))
                .collect();
            let cross_entropy = |layer: usize| {
                let logits = inputs[layer - 1].linear(model.head(), None::<&Tensor>);
                logits.cross_entropy_loss::<Tensor>(&batch.targets, None, Reduction::Mean, -100, 0.0)
            };
            let h = |layer: usize| &inputs[layer - 1] / t5_config.head_scale();
            let distance =
                |teacher: usize, student: usize| h(student).mse_loss(&h(teacher).detach(), Reduction::Mean);
            let pairs: Vec<(usize, usize)> = match mapping {
                LayerMapping::Uniform => vec![(2, 1), (4, 2), (6, 3)],
                LayerMapping::Last => vec![(LAYERS, SHALLOW)],
                LayerMapping::Dynamic => {
                    let (mut pairs, mut before) = (Vec::new(), SHALLOW + 1);
                    for teacher in [6, 4, 2] {
                        let below = (1..before)
                            .map(|student| (distance(teacher, student).double_value(&[]), student));
                        let nearest = below.min_by(|a, b| a.0.total_cmp(&b.0));
                        before = nearest.map_or(before, |(_, student)| student);
                        pairs.push((teacher, before));
                    }
                    pairs
                }
            };
            let distances: Vec<Tensor> =
                pairs.iter().map(|&(teacher, student)| distance(teacher, student)).collect();
            let distilled = Tensor::stack(&distances, 0).mean(Kind::Float);
            let exits = (cross_entropy(SHALLOW) * SHALLOW as f64 + cross_entropy(LAYERS) * LAYERS as f64)
                / (SHALLOW + LAYERS) as f64;
            let expected = by_name(&parameters.gradients(&[exits + distilled * 0.5]));
            assert!(expected.len() > 10);
            for (name, expected) in &expected {
                let difference = (&found[name] - expected).abs().max().double_value(&[]);
                let size = expected.abs().max().double_value(&[]);
                assert!(
                    size > 0.0 && difference <= 1e-4 * size,
                    "{mapping:?} {name}: {difference} of {size}"
                );
            }
        }
    }
}

#[test]
fn a_run_of_a_configuration_lowers_both_losses() {
    let tiny = Tiny::new();
    let text =
        configuration(&tiny.path(""), "model").replace("sampled_exits = 1", "shallow_deep = { layer = 1 }");
    let file = tiny.path("run.toml");
    std::fs::write(&file, text).unwrap();
    let overrides = ["schedule.steps=60", "classifier.steps=0"].map(str::to_owned);
    let config = TrainConfig::load(&file, &overrides).unwrap();
    let shallow_deep = config.objective.shallow_deep.unwrap();
    assert_eq!((shallow_deep.distillation, shallow_deep.mapping), (0.5, LayerMapping::Dynamic));
    let options = TrainOptions { device: Device::Cpu, time_limit: None, pause_after: None, overwrite: false };
    let Trained::Finished(report) = train(&config, &options).unwrap() else { panic!("it has paused") };
    let losses = report.validation.unwrap().tasks[0].exit_losses.clone();
    // A network that knows nothing of 35 tokens has ln 35 = 3.56.
    assert!(losses[0] < 3.2 && losses[2] < 3.2, "{losses:?}");
    let log = std::fs::read_to_string(config.checkpoints.join("log.jsonl")).unwrap();
    let line: serde_json::Value = serde_json::from_str(log.lines().next().unwrap()).unwrap();
    assert!(line["exit_losses"][0].is_number() && line["exit_losses"][1].is_null(), "{line}");
}
