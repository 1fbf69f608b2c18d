use std::collections::BTreeMap;
use std::path::Path;

use calm_core::{Backbone, DecodeOptions, Policy, Propagation, decode};
use calm_model::{Dropout, T5, TeacherForcing, Tokenizer, init, read_safetensors};
use calm_train::batches::{FrameTokens, TokenPair, collate};
use calm_train::{Curve, Error, OptimizerConfig, OptimizerKind, TrainConfig, checkpoint, train};
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

fn bytes(config: &TrainConfig) -> [Vec<u8>; 2] {
    [checkpoint::path(&config.checkpoints), config.output.join("model.safetensors")]
        .map(|path| std::fs::read(path).unwrap())
}

fn error(config: &TrainConfig) -> String {
    train(config, Device::Cpu).expect_err("the run must be refused").to_string()
}

#[test]
fn a_run_learns_and_leaves_a_complete_checkpoint() {
    let tiny = Tiny::new();
    let mut config = tiny.config("model");
    config.schedule.curve = Curve::Cosine;
    config.schedule.steps = 120;
    config.classifier.steps = 40;
    config.validation.every = 50;
    config.validation.examples = 10;
    let report = train(&config, Device::Cpu).unwrap();

    let losses = losses(&config);
    assert_eq!(losses.iter().map(|(step, _)| *step).collect::<Vec<_>>(), [20, 40, 60, 80, 100, 120]);
    // A uniform guess among the 35 tokens costs ln 35 = 3.6.
    assert!(losses[0].1 < 3.6 && losses[5].1 < 0.5 * losses[0].1, "{losses:?}");
    let scored = validations(&config);
    assert_eq!(scored.iter().map(|line| line["step"].as_u64().unwrap()).collect::<Vec<_>>(), [50, 100]);
    assert_eq!(scored[1]["validation"]["exit_bleu"].as_array().unwrap().len(), 3);

    assert_eq!(report.validation.as_ref().unwrap().examples, 10);
    let layers: Vec<usize> = report.classifier.iter().map(|scores| scores.layer).collect();
    assert_eq!(layers, [1, 2]);
    for scores in &report.classifier {
        let fractions = [scores.do_not_exit_f1, scores.agreement];
        assert!(fractions.iter().all(|value| (0.0..=1.0).contains(value)), "{scores:?}");
    }
    let saved: Value =
        serde_json::from_str(&std::fs::read_to_string(config.output.join("training.json")).unwrap()).unwrap();
    assert_eq!(saved["config"]["schedule"]["steps"], 120);
    assert_eq!(saved["validation"]["bleu"].as_f64(), report.validation.map(|validation| validation.bleu));

    let model = T5::load(&config.output, Device::Cpu).unwrap();
    assert_eq!(model.unexpected(), &[] as &[String]);
    assert_eq!(model.exit_classifier().unwrap().weight.len(), 32);
    let tokenizer = Tokenizer::load(&config.output.join("tokenizer.json")).unwrap();
    let source = tokenizer.encode("three one").unwrap();
    let encoded = model.encode(&[&source]).unwrap();
    let options = DecodeOptions { max_tokens: 16, propagation: Propagation::Lazy };
    let generation = decode(&model, &encoded, 1, &Policy::Full, &options).unwrap().remove(0);
    let text = tokenizer.decode(&generation.tokens).unwrap();
    let french = ["un", "deux", "trois", "quatre", "cinq", "six", "sept", "huit", "neuf", "dix"];
    assert!(text.split(' ').all(|word| french.contains(&word)), "{text}");
}

/// Over several epochs, with dropout and sampled exits.
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
            config.model.tie_word_embeddings = tied;
            config.optimizer = OptimizerConfig { learning_rate: 0.01, ..optimizer.clone() };
            config.schedule.steps = 23;
            config.validation.every = 10;
        }
        let report = train(&straight, Device::Cpu).unwrap();
        assert!(report.epochs > 2.0, "{} epochs do not cross a boundary", report.epochs);
        // Step 7 is neither a multiple of `checkpoint_every` nor the end of an epoch.
        parts.schedule.steps = 7;
        train(&parts, Device::Cpu).unwrap();
        parts.schedule.steps = 23;
        let resumed = train(&parts, Device::Cpu).unwrap();
        assert!(bytes(&straight) == bytes(&parts), "{optimizer:?}");
        assert_eq!(report.validation, resumed.validation);
        assert_eq!((report.epochs, report.target_tokens), (resumed.epochs, resumed.target_tokens));
        let steps = |config| losses(config).into_iter().filter(|(step, _)| *step != 7).collect::<Vec<_>>();
        assert_eq!(steps(&straight), steps(&parts));
        assert_eq!(validations(&straight), validations(&parts));
    }
}

/// The published weights are the average's, rounded to bf16, if there is one.
#[test]
fn the_average_is_published() {
    let tiny = Tiny::new();
    for (ema_decay, prefix) in [(None, ""), (Some(0.9), "ema.")] {
        let mut config = tiny.config(&format!("model{prefix}"));
        config.optimizer.ema_decay = ema_decay;
        config.classifier.steps = 0;
        train(&config, Device::Cpu).unwrap();
        let state = read_safetensors(&checkpoint::path(&config.checkpoints), Device::Cpu).unwrap();
        let published = read_safetensors(&config.output.join("model.safetensors"), Device::Cpu).unwrap();
        assert!(published.len() > 10);
        for (name, tensor) in published {
            assert_eq!(tensor, state[&format!("{prefix}{name}")].to_kind(Kind::BFloat16), "{name}");
        }
        let name = "decoder.final_layer_norm.weight";
        let average = state.get(&format!("ema.{name}"));
        assert!(average.is_none_or(|average| *average != state[name]));
    }
}

/// Batches of unequal sizes: a mean of their means would be another gradient.
#[test]
fn accumulated_gradients_are_those_of_one_batch() {
    let tiny = Tiny::new();
    let run = |accumulate: u32, batch_tokens: usize| {
        let mut config = tiny.config(&format!("model-{accumulate}-{batch_tokens}"));
        config.data.batch_tokens = batch_tokens;
        config.objective.sampled_exits = None;
        config.objective.dropout = 0.0;
        config.optimizer.clip_norm = 1e9;
        config.optimizer.accumulate = accumulate;
        config.schedule.steps = 1;
        config.schedule.warmup_steps = 1;
        config.classifier.steps = 0;
        config.validation.examples = 0;
        let report = train(&config, Device::Cpu).unwrap();
        let state = read_safetensors(&checkpoint::path(&config.checkpoints), Device::Cpu).unwrap();
        let gradient = state.into_iter().filter(|(name, _)| name.starts_with("adam.mean."));
        (report, losses(&config)[0].1, gradient.collect::<BTreeMap<_, _>>())
    };
    let (whole, loss, gradient) = run(1, 100_000);
    assert!(whole.epochs == 1.0 && gradient.len() > 10);
    for batch_tokens in [800, 1500] {
        let accumulate = (1.0 / run(1, batch_tokens).0.epochs).round() as u32;
        assert!(accumulate > 1);
        let (report, accumulated_loss, accumulated) = run(accumulate, batch_tokens);
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

/// After one step the mean of gradients is (1 - beta1) times the gradient, which autograd gives from the whole loss at once.
#[test]
fn a_step_follows_the_weighted_loss_of_all_exits() {
    let tiny = Tiny::new();
    let tokenizer = Tokenizer::load(&tiny.path("tokenizer.json")).unwrap();
    let text: String = std::fs::read_to_string(tiny.path("corpus.jsonl")).unwrap();
    let text: String = text.lines().take(20).map(|line| format!("{line}\n")).collect();
    std::fs::write(tiny.path("short.jsonl"), &text).unwrap();
    for tied in [true, false] {
        let mut config = tiny.config(&format!("model-{tied}"));
        config.model.tie_word_embeddings = tied;
        config.data.train = vec![tiny.path("short.jsonl")];
        config.data.max_source_tokens = 40;
        config.data.max_target_tokens = 40;
        config.data.batch_tokens = 100_000;
        config.objective.sampled_exits = None;
        config.objective.dropout = 0.0;
        config.optimizer.clip_norm = 1e9;
        config.schedule.steps = 1;
        config.schedule.warmup_steps = 1;
        config.classifier.steps = 0;
        config.validation.examples = 0;
        train(&config, Device::Cpu).unwrap();
        let saved = read_safetensors(&checkpoint::path(&config.checkpoints), Device::Cpu).unwrap();

        let pairs: Vec<TokenPair> = text
            .lines()
            .map(|line| {
                let line: Value = serde_json::from_str(line).unwrap();
                let [source, target] =
                    ["source", "target"].map(|key| tokenizer.encode(line[key].as_str().unwrap()).unwrap());
                TokenPair { source, target }
            })
            .collect();
        let batch = collate(&pairs.iter().collect::<Vec<_>>(), FrameTokens { start: 0, pad: 0 }, Device::Cpu);
        let t5_config = config.t5_config(tokenizer.vocab_size());
        let weights = init::random_weights(&t5_config, config.seed as i64);
        let weights = weights.map(|tensor| tensor.set_requires_grad(true));
        let model = T5::new(&t5_config, &weights).unwrap();
        let states = model.decoder_states(&TeacherForcing {
            sources: &batch.sources,
            decoder_inputs: &batch.decoder_inputs,
            dropout: Dropout::OFF,
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
    train(&config, Device::Cpu).unwrap();
    let (files, lines) = (bytes(&config), log(&config));
    train(&config, Device::Cpu).unwrap();
    assert!(files == bytes(&config));
    assert_eq!(lines, log(&config));
}

#[test]
fn what_was_logged_after_the_checkpoint_is_logged_once() {
    let tiny = Tiny::new();
    let mut config = tiny.config("model");
    config.schedule.steps = 40;
    config.checkpoint_every = 40;
    train(&config, Device::Cpu).unwrap();
    let expected = losses(&config);
    // A run that was killed in the middle of a line, long after its checkpoint.
    std::fs::remove_file(checkpoint::path(&config.checkpoints)).unwrap();
    let path = config.checkpoints.join("log.jsonl");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, &text[..text.len() - 9]).unwrap();
    train(&config, Device::Cpu).unwrap();
    assert_eq!(losses(&config), expected);
}

#[test]
fn a_diverging_run_stops_and_keeps_its_checkpoint() {
    let tiny = Tiny::new();
    let mut config = tiny.config("model");
    config.schedule.steps = 30;
    config.checkpoint_every = 25;
    let learning_rate = std::mem::replace(&mut config.optimizer.learning_rate, 1e30);
    match train(&config, Device::Cpu) {
        Err(Error::Diverged { step: 20, checkpoint: None, .. }) => {}
        other => panic!("{other:?}"),
    }
    assert!(!checkpoint::path(&config.checkpoints).exists());

    config.optimizer.learning_rate = learning_rate;
    config.schedule.steps = 8;
    train(&config, Device::Cpu).unwrap();
    let before = bytes(&config);
    config.schedule.steps = 60;
    config.optimizer.learning_rate = 1e30;
    let error = error(&config);
    assert!(error.starts_with("the training diverged: at step 20 the loss is "), "{error}");
    assert!(error.ends_with("; the checkpoint of step 8 is intact"), "{error}");
    assert!(before == bytes(&config));
    config.optimizer.learning_rate = learning_rate;
    config.schedule.steps = 10;
    train(&config, Device::Cpu).unwrap();
}

#[test]
fn bf16_activations_learn_too() {
    let tiny = Tiny::new();
    let mut config = tiny.config("model");
    config.precision = calm_train::Precision::Bf16;
    config.schedule.steps = 60;
    train(&config, Device::Cpu).unwrap();
    let losses = losses(&config);
    assert!(losses[2].1 < 0.8 * losses[0].1, "{losses:?}");
    let saved = read_safetensors(&checkpoint::path(&config.checkpoints), Device::Cpu).unwrap();
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
        let report = train(&config, Device::Cpu).unwrap();
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
        config.data.train = vec![path];
        error(&config)
    };
    let check = |message: String, expected: &str| assert!(message.contains(expected), "{message}");
    check(with_data("nothing.jsonl", None), "nothing.jsonl: No such file");
    check(with_data("empty.jsonl", Some("")), "empty.jsonl: the dataset is empty");
    check(with_data("broken.jsonl", Some("{\"source\": \"a\"\n")), "broken.jsonl:1");
    check(with_data("other.jsonl", Some("{\"text\": \"a\"}\n")), "other.jsonl:1: no column `source`");
    check(with_data("corpus.csv", Some("a,b\n")), "corpus.csv: expected a file whose name ends in");
    let long = format!("{{\"source\": \"one\", \"target\": \"{}\"}}\n", "un deux ".repeat(20));
    check(with_data("long.jsonl", Some(&long)), "no training example is left");
    // One example is enough, and none of one is held out.
    let mut config = tiny.config("single");
    config.data.train = vec![tiny.path("single.jsonl")];
    std::fs::write(tiny.path("single.jsonl"), "{\"source\": \"one\", \"target\": \"un\"}\n").unwrap();
    assert_eq!(train(&config, Device::Cpu).unwrap().examples, 1);

    let mut config = tiny.config("refused");
    config.tokenizer = tiny.path("no-tokenizer.json");
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
    train(&config, Device::Cpu).unwrap();
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
    check(&|config| config.model.d_ff = 16, "has the shape [32, 32]");
    check(
        &|config| config.model.num_decoder_layers = 4,
        "decoder.block.3.layer.0.SelfAttention.k.weight is missing",
    );
    check(&|config| config.model.num_decoder_layers = 2, "it has a tensor adam.mean.decoder.block.2");
    check(
        &|config| config.optimizer.kind = OptimizerKind::Adafactor,
        "its optimiser is adamw, not adafactor",
    );
    check(&|config| config.optimizer.ema_decay = Some(0.9), "it has no average of the parameters, for which");
    check(&|config| config.schedule.steps = 11, "it is at step 12, and schedule.steps is 11");
    let before = bytes(&config);
    train(&config, Device::Cpu).unwrap();
    assert!(before == bytes(&config));

    let path = checkpoint::path(&config.checkpoints);
    truncate(&path);
    let message = error(&config);
    assert!(message.contains("checkpoint.safetensors is not a valid safetensors file"), "{message}");
}

fn truncate(path: &Path) {
    let bytes = std::fs::read(path).unwrap();
    std::fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
}
