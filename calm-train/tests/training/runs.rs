use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use calm_checkpoint::Tokenizer;
use calm_core::{Backbone, DecodeOptions, Full, PolicySpec, decode};
use calm_data::Columns;
use calm_metrics::Metric;
use calm_model::{Dropout, T5, TeacherForcing, init, read_safetensors, write_safetensors};
use calm_train::batches::{FrameTokens, collate};
use calm_train::checkpoint::Slot;
use calm_train::corpus::Corpus;
use calm_train::tokens::TokenPair;
use calm_train::{
    Curve, Error, ModelConfig, OptimizerConfig, OptimizerKind, TaskConfig, TrainConfig, TrainOptions,
    TrainReport, Trained, checkpoint, prepare, train,
};
use serde_json::Value;
use tch::{Device, Kind, Reduction, Tensor};

use crate::tiny::Tiny;

fn log(config: &TrainConfig) -> Vec<Value> {
    let text = std::fs::read_to_string(config.checkpoints.join("log.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn losses(config: &TrainConfig) -> Vec<(u64, f64)> {
    let steps = log(config).into_iter().filter(|line| line.get("loss").is_some());
    steps.map(|line| (line["step"].as_u64().unwrap(), line["loss"].as_f64().unwrap())).collect()
}

fn validations(config: &TrainConfig) -> Vec<Value> {
    log(config).into_iter().filter(|line| line.get("validation").is_some()).collect()
}

pub(crate) fn newest(config: &TrainConfig) -> PathBuf {
    checkpoint::find(&config.checkpoints, Slot::Newest).expect("a checkpoint")
}

pub(crate) fn state(config: &TrainConfig) -> BTreeMap<String, Tensor> {
    checkpoint::load(&newest(config)).unwrap().1
}

pub(crate) fn bytes(config: &TrainConfig) -> [Vec<u8>; 2] {
    [newest(config).join("state.safetensors"), config.output.join("model.safetensors")]
        .map(|path| std::fs::read(path).unwrap())
}

pub(crate) const OPTIONS: TrainOptions =
    TrainOptions { device: Device::Cpu, time_limit: None, pause_after: None, overwrite: false };

pub(crate) fn run(config: &TrainConfig) -> TrainReport {
    match train(config, &OPTIONS).unwrap() {
        Trained::Finished(report) => *report,
        Trained::Paused { step } => panic!("paused at step {step}"),
    }
}

pub(crate) fn error(config: &TrainConfig) -> String {
    train(config, &OPTIONS).expect_err("the run must be refused").to_string()
}

fn shape(config: &mut TrainConfig) -> &mut ModelConfig {
    config.model.as_mut().unwrap()
}

/// Configures one step on all exits, without dropout and clipping.
///
/// Its gradient can then be computed in another way.
fn take_one_plain_step(config: &mut TrainConfig) {
    config.objective.sampled_exits = None;
    config.objective.dropout = 0.0;
    config.optimizer.clip_norm = 1e9;
    config.schedule.steps = 1;
    config.schedule.warmup_steps = 1;
    config.classifier.steps = 0;
    config.validation.examples = 0;
}

#[test]
fn a_run_learns_and_leaves_a_complete_checkpoint() {
    let tiny = Tiny::new();
    let mut config = tiny.config("model");
    config.schedule.curve = Curve::Cosine;
    config.schedule.steps = 200;
    config.classifier.steps = 40;
    config.confidence.examples = 24;
    config.validation.every = 50;
    config.validation.examples = 10;
    let report = run(&config);

    let losses = losses(&config);
    assert_eq!(
        losses.iter().map(|(step, _)| *step).collect::<Vec<_>>(),
        (1..=10).map(|i| 20 * i).collect::<Vec<_>>()
    );
    // A uniform guess among the 35 tokens costs ln 35 = 3.6.
    assert!(losses[0].1 < 3.6 && losses[9].1 < 0.5 * losses[0].1, "{losses:?}");
    let scored = validations(&config);
    assert_eq!(scored.iter().map(|line| line["step"].as_u64().unwrap()).collect::<Vec<_>>(), [50, 100, 150]);
    assert_eq!(scored[1]["validation"]["tasks"][0]["exit_scores"].as_array().unwrap().len(), 3);

    let validation = report.validation.unwrap();
    assert_eq!(validation.tasks[0].examples, 10);
    assert_eq!(validation.loss, validation.tasks[0].loss);
    assert!(validation.loss < 2.0 && validation.tasks[0].exit_losses.len() == 3, "{validation:?}");
    let layers: Vec<usize> = report.classifier.iter().map(|scores| scores.layer).collect();
    assert_eq!(layers, [1, 2]);
    for scores in &report.classifier {
        let fractions = [scores.do_not_exit_f1, scores.agreement];
        assert!(fractions.iter().all(|value| (0.0..=1.0).contains(value)), "{scores:?}");
    }
    // The margin at both exits, shortlists that begin at the first or the second, and mixtures.
    assert_eq!(report.confidence.iter().map(|row| row.layer).collect::<Vec<_>>(), [1, 2, 1, 2, 2, 1, 2]);
    assert!(report.confidence.iter().all(|row| row.tokens > 0 && row.expected_calibration_error < 0.5));
    assert!(config.output.join("reliability.svg").is_file());
    let saved: Value =
        serde_json::from_str(&std::fs::read_to_string(config.output.join("training.json")).unwrap()).unwrap();
    assert_eq!(saved["config"]["schedule"]["steps"], 200);
    assert_eq!(saved["validation"]["loss"].as_f64(), Some(validation.loss));
    assert!(config.output.join("learning_curves.svg").is_file());

    let model = T5::load(&config.output, Device::Cpu).unwrap();
    assert_eq!(model.unexpected(), &[] as &[String]);
    assert_eq!(model.exit_classifier().unwrap().weight.len(), 32);
    for policy in ["calm-agreement-0.9", "calm-agreement_pruned-0.9-exits1.2", "calm-beta-0.9"] {
        policy.parse::<PolicySpec>().unwrap().make(&model).unwrap();
    }
    let tokenizer = Tokenizer::load(&config.output.join("tokenizer.json")).unwrap();
    let source = tokenizer.encode("three one").unwrap();
    let sources: [&[u32]; 1] = [&source];
    let prompt = model.read(&sources).unwrap();
    let options = DecodeOptions::new(16);
    let generation = decode(&*prompt, &Full, &options).unwrap().remove(0);
    let text = tokenizer.decode(&generation.tokens).unwrap();
    let french = ["un", "deux", "trois", "quatre", "cinq", "six", "sept", "huit", "neuf", "dix"];
    // The limit on the output may cut its last word.
    let words: Vec<&str> = text.split(' ').collect();
    assert!(words.len() > 1 && words[..words.len() - 1].iter().all(|word| french.contains(word)), "{text}");
}

/// The run takes several epochs, with dropout, also of layers, and sampled exits.
#[test]
fn a_run_in_two_parts_is_the_run_in_one() {
    let tiny = Tiny::new();
    let optimizers = [
        (true, OptimizerConfig::default()),
        (false, OptimizerConfig { ema_decay: Some(0.8), accumulate: 2, ..OptimizerConfig::default() }),
        (true, OptimizerConfig { kind: OptimizerKind::Adafactor, ..OptimizerConfig::default() }),
        (
            false,
            OptimizerConfig {
                kind: OptimizerKind::Adafactor,
                beta1: Some(0.9),
                parameter_scale: true,
                ema_decay: Some(0.999),
                ..OptimizerConfig::default()
            },
        ),
    ];
    for (case, (tied, optimizer)) in optimizers.into_iter().enumerate() {
        let [mut straight, mut parts] =
            ["straight", "parts"].map(|name| tiny.config(&format!("{name}-{case}")));
        for config in [&mut straight, &mut parts] {
            shape(config).tie_word_embeddings = tied;
            config.optimizer = OptimizerConfig { learning_rate: 0.01, ..optimizer.clone() };
            config.objective.layer_dropout = 0.5;
            config.schedule.steps = 23;
            config.validation.every = 10;
        }
        let report = run(&straight);
        assert!(report.epochs > 2.0, "{} epochs do not cross a boundary", report.epochs);
        // Step 7 is neither a multiple of `checkpoint_every` nor the end of an epoch.
        parts.schedule.steps = 7;
        run(&parts);
        parts.schedule.steps = 23;
        let resumed = run(&parts);
        assert!(bytes(&straight) == bytes(&parts), "{optimizer:?}");
        assert_eq!(report.validation, resumed.validation);
        assert_eq!((report.epochs, report.target_tokens), (resumed.epochs, resumed.target_tokens));
        // In one log the line of step 20 has the mean since step 7, in the other one the mean since the
        // start.
        let steps = |config| losses(config).into_iter().filter(|(step, _)| *step > 20).collect::<Vec<_>>();
        assert_eq!(steps(&straight), steps(&parts));
        assert_eq!(validations(&straight), validations(&parts));
    }
}

/// The published weights are those of the average, if there is one, rounded to bf16.
#[test]
fn the_average_is_published() {
    let tiny = Tiny::new();
    for (ema_decay, prefix) in [(None, ""), (Some(0.9), "ema.")] {
        let mut config = tiny.config(&format!("model{prefix}"));
        config.optimizer.ema_decay = ema_decay;
        config.classifier.steps = 0;
        run(&config);
        let saved = state(&config);
        let published = read_safetensors(&config.output.join("model.safetensors"), Device::Cpu).unwrap();
        assert!(published.len() > 10);
        for (name, tensor) in published {
            assert_eq!(tensor, saved[&format!("{prefix}{name}")].to_kind(Kind::BFloat16), "{name}");
        }
        let name = "decoder.final_layer_norm.weight";
        let average = saved.get(&format!("ema.{name}"));
        assert!(average.is_none_or(|average| *average != saved[name]));
    }
}

/// The batches have unequal sizes: a mean of their means would be another gradient.
#[test]
fn accumulated_gradients_are_those_of_one_batch() {
    let tiny = Tiny::new();
    let run_of = |accumulate: u32, batch_tokens: usize| {
        let mut config = tiny.config(&format!("model-{accumulate}-{batch_tokens}"));
        config.data.batch_tokens = batch_tokens;
        config.optimizer.accumulate = accumulate;
        take_one_plain_step(&mut config);
        let report = run(&config);
        let saved = state(&config);
        let gradient = saved.into_iter().filter(|(name, _)| name.starts_with("adam.mean."));
        (report, losses(&config)[0].1, gradient.collect::<BTreeMap<_, _>>())
    };
    let (whole, loss, gradient) = run_of(1, 100_000);
    assert!(whole.epochs == 1.0 && gradient.len() > 10);
    for batch_tokens in [800, 1500] {
        let accumulate = (1.0 / run_of(1, batch_tokens).0.epochs).round() as u32;
        assert!(accumulate > 1);
        let (report, accumulated_loss, accumulated) = run_of(accumulate, batch_tokens);
        assert_eq!((report.epochs, report.target_tokens), (1.0, whole.target_tokens));
        assert!(
            (loss - accumulated_loss).abs() < 1e-5 * loss,
            "{accumulate}: {accumulated_loss}, not {loss}"
        );
        for (name, expected) in &gradient {
            let difference = (&accumulated[name] - expected).abs().max().double_value(&[]);
            let size = expected.abs().max().double_value(&[]);
            assert!(difference <= 1e-4 * size, "{accumulate}, {name}: {difference} of {size}");
        }
    }
}

/// After one step the mean of gradients is (1 - beta1) times the gradient.
///
/// Autograd gives that gradient from the whole loss at once.
#[test]
fn a_step_follows_the_weighted_loss_of_all_exits() {
    let tiny = Tiny::new();
    let tokenizer = Tokenizer::load(&tiny.path("tokenizer.json")).unwrap();
    let text: String = std::fs::read_to_string(tiny.path("corpus.jsonl")).unwrap();
    let text: String = text.lines().take(20).map(|line| format!("{line}\n")).collect();
    std::fs::write(tiny.path("short.jsonl"), &text).unwrap();
    for tied in [true, false] {
        let mut config = tiny.config(&format!("model-{tied}"));
        shape(&mut config).tie_word_embeddings = tied;
        config.data.tasks[0].train = tiny.path("short.jsonl").into();
        config.data.max_source_tokens = 40;
        config.data.max_target_tokens = 40;
        config.data.batch_tokens = 100_000;
        take_one_plain_step(&mut config);
        run(&config);
        let saved = state(&config);

        let pairs: Vec<TokenPair> = text
            .lines()
            .map(|line| {
                let line: Value = serde_json::from_str(line).unwrap();
                let [source, target] =
                    ["source", "target"].map(|key| tokenizer.encode(line[key].as_str().unwrap()).unwrap());
                TokenPair { source, target }
            })
            .collect();
        let batch = collate(&pairs, FrameTokens { start: 0, pad: 0 });
        let t5_config =
            shape(&mut config).t5_config(tokenizer.vocab_size(), tokenizer.special_tokens().unwrap());
        let weights = init::random_weights(&t5_config, config.seed as i64);
        let weights = weights.map(|tensor| tensor.set_requires_grad(true));
        let model = T5::new(&t5_config, &weights).unwrap();
        let states = model.decoder_states(&TeacherForcing {
            sources: &batch.sources,
            source_lengths: &batch.source_lengths,
            decoder_inputs: &batch.decoder_inputs,
            dropout: &Dropout::off(),
        });
        let losses: Vec<Tensor> = (1..)
            .zip(&states)
            .map(|(layer, state)| {
                let inputs = model.head_input(state).flatten(0, 1).index_select(0, &batch.positions);
                let logits = inputs.linear(model.head(), None::<&Tensor>);
                let loss =
                    logits.cross_entropy_loss::<Tensor>(&batch.targets, None, Reduction::Mean, -100, 0.1);
                loss * (f64::from(layer) / 6.0)
            })
            .collect();
        Tensor::stack(&losses, 0).sum(Kind::Float).backward();
        for (name, parameter) in weights.iter() {
            let found = &saved[&format!("adam.mean.{name}")] / (1.0 - 0.9);
            let expected = parameter.grad();
            let difference = (found - &expected).abs().max().double_value(&[]);
            let size = expected.abs().max().double_value(&[]);
            assert!(difference <= 1e-4 * size, "tied {tied}, {name}: {difference} of {size}");
        }
    }
}

#[test]
fn a_finished_run_gives_the_same_model_again() {
    let tiny = Tiny::new();
    let config = tiny.config("model");
    run(&config);
    let (files, lines) = (bytes(&config), log(&config));
    run(&config);
    assert!(files == bytes(&config));
    assert_eq!(lines, log(&config));
}

#[test]
fn what_was_logged_after_the_checkpoint_is_logged_once() {
    let tiny = Tiny::new();
    let mut config = tiny.config("model");
    config.schedule.steps = 40;
    config.checkpoint_every = 40;
    run(&config);
    let expected = losses(&config);
    // This run was killed in the middle of a line, long after its checkpoint.
    std::fs::remove_dir_all(newest(&config)).unwrap();
    let path = config.checkpoints.join("log.jsonl");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, &text[..text.len() - 9]).unwrap();
    run(&config);
    assert_eq!(losses(&config), expected);
}

#[test]
fn a_diverging_run_stops_and_keeps_its_checkpoint() {
    let tiny = Tiny::new();
    let mut config = tiny.config("model");
    config.schedule.steps = 30;
    config.checkpoint_every = 25;
    let learning_rate = std::mem::replace(&mut config.optimizer.learning_rate, 1e30);
    match train(&config, &OPTIONS) {
        Err(Error::Diverged { step: 20, checkpoint: None, .. }) => {}
        other => panic!("{other:?}"),
    }
    assert_eq!(checkpoint::find(&config.checkpoints, Slot::Newest), None);

    config.optimizer.learning_rate = learning_rate;
    config.schedule.steps = 8;
    run(&config);
    let before = bytes(&config);
    config.schedule.steps = 60;
    config.optimizer.learning_rate = 1e30;
    let error = error(&config);
    assert!(error.starts_with("the training diverged: at step 20 the loss is "), "{error}");
    assert!(error.ends_with("; the checkpoint of step 8 is intact"), "{error}");
    assert!(before == bytes(&config));
    config.optimizer.learning_rate = learning_rate;
    config.schedule.steps = 10;
    run(&config);
}

#[test]
fn a_loss_that_jumps_stops_the_run() {
    let tiny = Tiny::new();
    let mut config = tiny.config("model");
    config.schedule.steps = 160;
    config.classifier.steps = 0;
    run(&config);
    let checkpoint = newest(&config);
    let before = bytes(&config);
    // The run goes on from a learned state with a learning rate that undoes everything.
    config.schedule.steps = 400;
    config.schedule.warmup_steps = 300;
    config.checkpoint_every = 1000;
    config.optimizer.learning_rate = 3.0;
    config.optimizer.clip_norm = 1e9;
    config.loss_spike = 0.5;
    match train(&config, &OPTIONS) {
        Err(Error::Spike { loss, mean, checkpoint: Some(160), .. }) => assert!(loss > mean + 0.5),
        other => panic!("{other:?}"),
    }
    assert_eq!(newest(&config), checkpoint);
    assert!(before == bytes(&config));
}

#[test]
fn a_run_without_progress_stops_and_keeps_its_best_weights() {
    let tiny = Tiny::new();
    let mut config = tiny.config("model");
    config.schedule.steps = 2000;
    config.schedule.warmup_steps = 0;
    config.schedule.curve = Curve::Stable;
    config.validation.every = 20;
    config.validation.patience = 2;
    config.classifier.steps = 0;
    let report = run(&config);
    let losses: Vec<(u64, f64)> = validations(&config)
        .iter()
        .map(|line| (line["step"].as_u64().unwrap(), line["validation"]["loss"].as_f64().unwrap()))
        .collect();
    let best = losses.iter().copied().min_by(|a, b| a.1.total_cmp(&b.1)).unwrap();
    assert_eq!(best, losses[losses.len() - 3], "{losses:?}");
    assert_eq!(report.step, best.0);
    // The published weights are rounded.
    assert!((report.validation.unwrap().loss - best.1).abs() < 0.05 * best.1, "{best:?}");
    // A stopped run that is started again gives the same model.
    let before = bytes(&config);
    assert_eq!(run(&config).step, best.0);
    assert!(before == bytes(&config));
}

#[test]
fn a_paused_run_goes_on_later() {
    let tiny = Tiny::new();
    let [straight, parts] = ["straight", "parts"].map(|name| tiny.config(name));
    run(&straight);
    let options = TrainOptions { pause_after: Some(Duration::ZERO), ..OPTIONS };
    for expected in 1..12 {
        match train(&parts, &options).unwrap() {
            Trained::Paused { step } => assert_eq!(step, expected),
            Trained::Finished(_) => panic!("finished at step {expected}"),
        }
    }
    assert!(matches!(train(&parts, &options).unwrap(), Trained::Finished(_)));
    assert!(bytes(&straight) == bytes(&parts));
}

#[test]
fn a_run_whose_time_is_over_is_finished() {
    let tiny = Tiny::new();
    let config = tiny.config("model");
    let options = TrainOptions { time_limit: Some(Duration::ZERO), ..OPTIONS };
    match train(&config, &options).unwrap() {
        Trained::Finished(report) => assert_eq!(report.step, 1),
        Trained::Paused { step } => panic!("paused at step {step}"),
    }
    // More time than the schedule needs changes nothing.
    let [straight, limited] = ["straight", "limited"].map(|name| tiny.config(name));
    run(&straight);
    let options = TrainOptions { time_limit: Some(Duration::from_secs(3600)), ..OPTIONS };
    assert!(matches!(train(&limited, &options).unwrap(), Trained::Finished(_)));
    assert!(bytes(&straight) == bytes(&limited));
}

#[test]
fn large_checkpoints_are_divided() {
    let tiny = Tiny::new();
    let [whole, mut divided] = ["whole", "divided"].map(|name| tiny.config(name));
    run(&whole);
    divided.max_file_bytes = 20_000;
    for steps in [7, 12] {
        divided.schedule.steps = steps;
        run(&divided);
    }
    for dir in [newest(&divided), divided.output.clone()] {
        let files = std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap());
        let sizes: Vec<u64> = files
            .filter(|file| file.file_name().to_string_lossy().ends_with(".safetensors"))
            .map(|file| file.metadata().unwrap().len())
            .collect();
        assert!(sizes.len() > 1 && sizes.iter().all(|&size| size <= 20_000), "{}: {sizes:?}", dir.display());
    }
    let states = [&whole, &divided].map(state);
    assert_eq!(states[0].keys().collect::<Vec<_>>(), states[1].keys().collect::<Vec<_>>());
    for (name, tensor) in states[0].iter().filter(|(name, _)| !name.starts_with("log.")) {
        assert_eq!(*tensor, states[1][name], "{name}");
    }
    let models = [&whole, &divided].map(|config| T5::load(&config.output, Device::Cpu).unwrap());
    assert_eq!(models[0].head(), models[1].head());
    // The checkpoint is in one file again, and the old files are gone.
    divided.max_file_bytes = 1_000_000;
    run(&divided);
    let names = std::fs::read_dir(&divided.output).unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(names.filter(|name| name.to_string_lossy().starts_with("model")).count(), 1);
}

/// The checkpoints are the references of transformers: tied and untied, v1.0 and v1.1, with a classifier or
/// without.
#[test]
fn a_published_checkpoint_is_trained_further() {
    let tiny = Tiny::new();
    for name in ["v1_0", "v1_1"] {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../calm-model/tests/reference").join(name);
        let published = T5::load(&dir, Device::Cpu).unwrap();
        let mut config = tiny.config(name);
        config.model = None;
        config.init = Some(dir.clone());
        config.output_precision = calm_train::Precision::F32;
        // Only the classifier is trained, on weights that stay as they are.
        config.schedule.steps = 0;
        config.schedule.warmup_steps = 0;
        let report = run(&config);
        let trained = T5::load(&config.output, Device::Cpu).unwrap();
        assert_eq!(trained.unexpected(), &[] as &[String]);
        assert!(trained.exit_classifier().is_some());
        assert_eq!(trained.head().size(), [35, published.config().d_model], "the rows that have tokens");
        let batch = TeacherForcing {
            sources: &Tensor::from_slice(&[5i64, 6, 7, 1]).view([1, 4]),
            source_lengths: &Tensor::from_slice(&[4i64]),
            decoder_inputs: &Tensor::from_slice(&[0i64, 8, 9]).view([1, 3]),
            dropout: &Dropout::off(),
        };
        let logits = |model: &T5| {
            let states = model.decoder_states(&batch);
            let head = model.head().narrow(0, 0, 35);
            model.head_input(states.last().unwrap()).linear(&head, None::<&Tensor>)
        };
        assert_eq!(logits(&published), logits(&trained), "{name}");
        let keys = |dir: &Path| -> Value {
            serde_json::from_str(&std::fs::read_to_string(dir.join("config.json")).unwrap()).unwrap()
        };
        let (before, after) = (keys(&dir), keys(&config.output));
        for (key, value) in before.as_object().unwrap() {
            if !["tie_word_embeddings", "dtype", "torch_dtype"].contains(&key.as_str()) {
                assert_eq!(*value, after[key], "{name}: {key}");
            }
        }

        config.schedule.steps = 40;
        let before = report.validation.unwrap().loss;
        let after = run(&config).validation.unwrap().loss;
        assert!(after < before - 0.5, "{name}: {after} after {before}");
    }
}

#[test]
fn a_vocabulary_that_is_too_small_is_named() {
    let tiny = Tiny::new();
    let mut config = tiny.config("small");
    run(&config);
    let mut next = tiny.config("next");
    next.model = None;
    next.init = Some(config.output.clone());
    let path = config.output.join("config.json");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("\"vocab_size\": 35", "\"vocab_size\": 34")).unwrap();
    let message = error(&next);
    assert!(message.contains("shared.weight"), "{message}");
    shape(&mut config).d_model = 16;
    config.output = tiny.path("smaller");
    config.checkpoints = tiny.path("smaller.checkpoints");
    run(&config);
    next.init = Some(config.output.clone());
    next.tokenizer = Some(config.output.join("tokenizer.json"));
    run(&next);
}

/// What would be trained as a T5 must be one, with all of its tensors.
#[test]
fn checkpoints_of_other_networks_are_no_start() {
    let tiny = Tiny::new();
    let published = Path::new(env!("CARGO_MANIFEST_DIR")).join("../calm-model/tests/reference/v1_1");
    let start = tiny.path("start");
    std::fs::create_dir_all(&start).unwrap();
    let mut config = tiny.config("other");
    config.model = None;
    config.init = Some(start.clone());
    let text = std::fs::read_to_string(published.join("config.json")).unwrap();
    let check = |text: &str, extra: &str, expected: &str| {
        std::fs::write(start.join("config.json"), text).unwrap();
        let mut tensors = read_safetensors(&published.join("model.safetensors"), Device::Cpu).unwrap();
        tensors.insert(extra.to_owned(), Tensor::zeros([2], (Kind::Float, Device::Cpu)));
        write_safetensors(&start.join("model.safetensors"), tensors).unwrap();
        let message = error(&config);
        assert!(message.contains(expected), "{message}");
    };
    let umt5 = text.replace("\"t5\"", "\"umt5\"");
    assert_ne!(umt5, text);
    check(&umt5, "other", "model_type is `umt5`");
    for name in
        ["encoder.block.0.layer.0.SelfAttention.q.lora_A.weight", "decoder.block.9.layer.0.layer_norm.weight"]
    {
        check(&text, name, name);
    }
}

#[test]
fn tasks_are_mixed_and_scored_by_their_own_metrics() {
    let tiny = Tiny::new();
    let mut config = tiny.config("model");
    let numbers = config.data.tasks[0].clone();
    let held_out = tiny.path("held-out.jsonl");
    let line = r#"{"question": "one two", "answers": {"text": ["un deux", "1 2"]}}"#;
    std::fs::write(&held_out, format!("{line}\n").repeat(3)).unwrap();
    let questions: String =
        (0..40).map(|_| "{\"question\": \"three\", \"answers\": {\"text\": [\"trois\"]}}\n").collect();
    std::fs::write(tiny.path("questions.jsonl"), questions).unwrap();
    config.data.tasks.push(TaskConfig {
        name: "questions".to_owned(),
        train: tiny.path("questions.jsonl").into(),
        validation: Some(held_out.into()),
        columns: Columns {
            source: "question".to_owned(),
            target: "answers.text".to_owned(),
            prefix: "question: ".to_owned(),
            ..Columns::default()
        },
        metric: Metric::TokenF1,
        weight: 0.5,
    });
    let report = run(&config);
    let tasks = report.validation.unwrap().tasks;
    let named: Vec<_> = tasks.iter().map(|task| (task.name.as_str(), task.metric, task.examples)).collect();
    assert_eq!(named, [("numbers", Metric::Bleu, 4), ("questions", Metric::TokenF1, 3)]);
    assert_eq!(report.examples, 127 + 40);

    // Each epoch takes half of the questions, and two epochs all of them.
    let tokenizer = Tokenizer::load(&tiny.path("tokenizer.json")).unwrap();
    let corpus = Corpus::open(&config, &tokenizer).unwrap();
    let [first, second, third] = [0, 1, 2].map(|epoch| {
        let members = corpus.epoch(epoch);
        assert_eq!(members.len(), 127 + 20);
        // The examples of the second task come last.
        members[127..].iter().copied().collect::<BTreeSet<_>>()
    });
    assert_eq!((first.len(), first.union(&second).count()), (20, 40));
    assert_eq!(first, third);
    let before = corpus.fingerprint();
    config.data.tasks[1].weight = 1.0;
    assert_ne!(Corpus::open(&config, &tokenizer).unwrap().fingerprint(), before);
    config.data.tasks = vec![numbers];
    assert!(error(&config).contains("it was trained on other data"));
}

/// What `prepare` leaves is enough, so that another machine needs no data.
#[test]
fn prepared_data_can_be_carried_away() {
    let tiny = Tiny::new();
    let config = tiny.config("model");
    assert_eq!(prepare(&config).unwrap(), 127);
    let text = std::fs::read_to_string(tiny.path("corpus.jsonl")).unwrap();
    std::fs::remove_file(tiny.path("corpus.jsonl")).unwrap();
    let report = run(&config);
    assert_eq!(report.examples, 127);
    // Other limits need the data again.
    let mut other = config.clone();
    other.data.max_target_tokens = 15;
    assert!(error(&other).contains("corpus.jsonl"));
    // Changed data are tokenised again.
    let lines: Vec<&str> = text.lines().take(50).collect();
    std::fs::write(tiny.path("corpus.jsonl"), lines.join("\n")).unwrap();
    assert!(prepare(&config).unwrap() < 50);
    assert!(error(&config).contains("it was trained on other data"));
    // A damaged file is named.
    let path = config.checkpoints.join("numbers.train.tokens");
    truncate(&path);
    assert!(error(&config).contains("numbers.train.tokens is no file of tokens"), "{}", error(&config));
}

#[test]
fn bf16_activations_learn_too() {
    let tiny = Tiny::new();
    let mut config = tiny.config("model");
    config.precision = calm_train::Precision::Bf16;
    config.schedule.steps = 60;
    run(&config);
    let losses = losses(&config);
    assert!(losses[2].1 < 0.8 * losses[0].1, "{losses:?}");
    let saved = state(&config);
    assert_eq!(saved["shared.weight"].kind(), Kind::Float);
}

#[test]
fn a_run_without_held_out_examples_or_classifier_finishes() {
    let tiny = Tiny::new();
    for (examples, steps) in [(0, 5), (0, 0), (4, 0)] {
        let mut config = tiny.config(&format!("model-{examples}-{steps}"));
        config.validation.examples = examples;
        config.validation.every = 5;
        config.classifier.steps = steps;
        let report = run(&config);
        assert_eq!(report.validation.is_some(), examples > 0);
        assert_eq!(report.classifier.len(), 0);
        let model = T5::load(&config.output, Device::Cpu).unwrap();
        assert_eq!(model.exit_classifier().is_some(), steps > 0);
    }
}

#[test]
fn inputs_that_cannot_be_used_are_named() {
    let tiny = Tiny::new();
    let with_data = |name: &str, text: Option<&str>| {
        let mut config = tiny.config("refused");
        let path = tiny.path(name);
        if let Some(text) = text {
            std::fs::write(&path, text).unwrap();
        }
        config.data.tasks[0].train = path.into();
        error(&config)
    };
    let check = |message: String, expected: &str| assert!(message.contains(expected), "{message}");
    check(with_data("nothing.jsonl", None), "nothing.jsonl: No such file");
    check(with_data("empty.jsonl", Some("")), "empty.jsonl: the dataset is empty");
    check(with_data("broken.jsonl", Some("{\"source\": \"a\"\n")), "broken.jsonl:1");
    check(with_data("other.jsonl", Some("{\"text\": \"a\"}\n")), "other.jsonl:1: no column `source`");
    check(with_data("corpus.csv", Some("a,b\n1,2\n")), "corpus.csv:2: no column `source`");
    check(with_data("corpus.txt", Some("a b\n")), "corpus.txt: expected a file whose name ends in");
    let long = format!("{{\"source\": \"one\", \"target\": \"{}\"}}\n", "un deux ".repeat(20));
    check(with_data("long.jsonl", Some(&long)), "no training example is left");
    // One example is enough, and then none is held out.
    let mut config = tiny.config("single");
    config.data.tasks[0].train = tiny.path("single.jsonl").into();
    std::fs::write(tiny.path("single.jsonl"), "{\"source\": \"one\", \"target\": \"un\"}\n").unwrap();
    assert_eq!(run(&config).examples, 1);

    let mut config = tiny.config("refused");
    config.tokenizer = Some(tiny.path("no-tokenizer.json"));
    check(error(&config), "no-tokenizer.json: No such file");
    let mut config = tiny.config("refused");
    config.output = tiny.path("corpus.jsonl");
    check(error(&config), "cannot write");
    assert!(!tiny.path("refused").exists());
}

#[test]
fn checkpoints_of_other_runs_are_refused() {
    let tiny = Tiny::new();
    let config = tiny.config("model");
    run(&config);
    let check = |edit: &dyn Fn(&mut TrainConfig), expected: &str| {
        let mut config = config.clone();
        edit(&mut config);
        let message = error(&config);
        assert!(
            message.contains("holds a checkpoint of another run (") && message.contains(expected),
            "{message}"
        );
    };
    check(&|config| config.seed = 2, "its seed is 1, not 2");
    check(&|config| shape(config).d_ff = 16, "has the shape [32, 32]");
    check(
        &|config| shape(config).num_decoder_layers = 4,
        "decoder.block.3.layer.0.SelfAttention.k.weight is missing",
    );
    check(&|config| shape(config).num_decoder_layers = 2, "it has a tensor adam.mean.decoder.block.2");
    check(
        &|config| config.optimizer.kind = OptimizerKind::Adafactor,
        "its optimiser is adamw, not adafactor",
    );
    check(&|config| config.optimizer.ema_decay = Some(0.9), "it has no average of the parameters, for which");
    check(&|config| config.schedule.steps = 11, "it is at step 12, and schedule.steps is 11");
    let before = bytes(&config);
    run(&config);
    assert!(before == bytes(&config));

    let path = newest(&config).join("state.safetensors");
    truncate(&path);
    let message = error(&config);
    assert!(message.contains("state.safetensors is not a valid safetensors file"), "{message}");
}

pub(crate) fn truncate(path: &Path) {
    let bytes = std::fs::read(path).unwrap();
    std::fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
}
