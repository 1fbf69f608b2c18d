use std::path::Path;

use calm_train::{OptimizerKind, TrainConfig};

use crate::tiny::configuration;

/// Returns what loading says about the complete configuration with one text replaced by another.
fn message(from: &str, to: &str) -> String {
    let text = configuration(Path::new("folder"), "model");
    assert_eq!(text.matches(from).count(), 1, "{from}");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.toml");
    std::fs::write(&path, text.replace(from, to)).unwrap();
    let error = TrainConfig::load(&path, &[]).err().unwrap_or_else(|| panic!("{to} must be refused"));
    error.to_string().strip_prefix(&path.display().to_string()).unwrap().to_owned()
}

#[track_caller]
fn check(from: &str, to: &str, expected: &str) {
    let message = message(from, to);
    assert!(message.starts_with(expected), "{message}\ninstead of {expected}");
    assert_eq!(message.lines().count(), 1, "{message}");
}

#[test]
fn keys() {
    check("d_kv = 8", "d_kvv = 8", ":9: model.d_kvv: unknown field `d_kvv`, expected one of `d_model`");
    check("seed = 1", "sead = 1", ":1: sead: unknown field `sead`, expected one of `seed`");
    check("[classifier]", "[classifyer]", ":37: classifyer: unknown field `classifyer`");
    check("seed = 1\n", "", ": missing field `seed`");
    check("num_heads = 2\n", "", ":7: model: missing field `num_heads`");
    check("seed = 1", "seed = 1\nseed = 2", ":2: duplicate key");
}

#[test]
fn types() {
    check("seed = 1", "seed = -1", ":1: seed: invalid value: integer `-1`, expected u64");
    check("seed = 1", "seed = \"one\"", ":1: seed: invalid type: string \"one\", expected u64");
    check("d_ff = 32", "d_ff = 32.5", ":10: model.d_ff: invalid type: floating point `32.5`");
    check("curve = \"stable\"", "curve = \"linear\"", ":35: schedule.curve: unknown variant `linear`");
    check("checkpoint_every = 5", "precision = \"f16\"", ":5: precision: unknown variant `f16`");
    check("train = \"folder/corpus.jsonl\"", "train = 1", ":22: data.tasks[0].train: ");
}

#[test]
fn syntax() {
    check("d_ff = 32", "d_ff 32", ":10: ");
    check("d_ff = 32", "d_ff = ", ":10: ");
    check("[data]", "[data", ":15: ");
}

#[test]
fn ranges() {
    check("d_model = 32", "d_model = 0", ":8: model.d_model: is 0, but must be positive");
    check(
        "d_model = 32",
        "d_model = 4611686018427387904",
        ":8: model.d_model: is 4611686018427387904, but must be at most 65536",
    );
    check("num_heads = 2", "num_heads = -2", ":11: model.num_heads: is -2, but must be positive");
    check("num_layers = 1", "num_layers = 0", ":12: model.num_layers: is 0");
    check("num_decoder_layers = 3", "num_decoder_layers = 0", ":13: model.num_decoder_layers: is 0");
    check("d_kv = 8", "d_kv = 0", ":9: model.d_kv: is 0");
    check("d_ff = 32", "d_ff = 0", ":10: model.d_ff: is 0");
    for (name, reason) in
        [("\"\"", "is \"\", but"), ("\"a b\"", "is \"a b\", but"), ("\"a/b\"", "is \"a/b\", but")]
    {
        check("\"numbers\"", name, &format!(":21: data.tasks[0].name: {reason} may have letters"));
    }
    check(
        "[objective]",
        "[[data.tasks]]\nname = \"numbers\"\ntrain = \"a\"\n[objective]",
        ":25: data.tasks[1].name: is \"numbers\", as that of an earlier task",
    );
    for weight in ["0.0", "-1.0", "nan", "inf"] {
        check(
            "name = \"numbers\"",
            &format!("weight = {weight}\nname = \"numbers\""),
            ":21: data.tasks[0].weight: is ",
        );
    }
    for value in ["1.0", "-0.1", "nan"] {
        for key in ["last_weight", "distillation", "layer_dropout"] {
            let expected = format!(":27: objective.{key}: is ");
            check("dropout = 0.1", &format!("{key} = {value}"), &expected);
        }
    }
    check("checkpoint_every = 5", "loss_spike = -1.0", ":5: loss_spike: is -1, but must be at least 0");
    check("checkpoint_every = 5", "max_file_bytes = 0", ":5: max_file_bytes: is 0, but must be positive");
    check("checkpoint_every = 5", "init = \"folder\"", ":5: init: excludes the table model");
    check("batch_size = 4", "patience = 2", ":42: validation.patience: needs validation.every");
    check("max_source_tokens = 16", "max_source_tokens = 0", ":16: data.max_source_tokens: is 0");
    check("max_target_tokens = 16", "max_target_tokens = 0", ":17: data.max_target_tokens: is 0");
    check(
        "batch_tokens = 500",
        "batch_tokens = 31",
        ":18: data.batch_tokens: is 31, but one example may have 32",
    );
    check("sampled_exits = 1", "sampled_exits = 0", ":25: objective.sampled_exits: is 0");
    for (with, expected) in [
        ("shallow_deep = { layer = 1 }\nsampled_exits = 1", ":26: objective.sampled_exits: is excluded by"),
        ("shallow_deep = { layer = 1 }\nlast_weight = 0.5", ":26: objective.last_weight: is excluded by"),
        ("shallow_deep = { layer = 1 }\ndistillation = 0.5", ":26: objective.distillation: is excluded by"),
        (
            "shallow_deep = { layer = 1 }\nexit_weights = \"last\"",
            ":26: objective.exit_weights: is excluded by",
        ),
        ("shallow_deep = { layer = 1 }\nsampling = \"rotating\"", ":26: objective.sampling: is excluded by"),
        ("shallow_deep = { layer = 0 }", ":25: objective.shallow_deep.layer: is 0, but layers count from 1"),
        (
            "shallow_deep = { layer = 3 }",
            ":25: objective.shallow_deep.layer: is 3, but must be below the last",
        ),
        (
            "shallow_deep = { layer = 1, distillation = -1 }",
            ":25: objective.shallow_deep.distillation: is -1, but",
        ),
        (
            "shallow_deep = { layer = 1, mapping = \"x\" }",
            ":25: objective.shallow_deep.mapping: unknown variant `x`",
        ),
    ] {
        check("sampled_exits = 1", with, expected);
    }
    for value in ["1.0", "-0.1", "nan", "inf"] {
        check(
            "label_smoothing = 0.1",
            &format!("label_smoothing = {value}"),
            ":26: objective.label_smoothing: is ",
        );
        check("dropout = 0.1", &format!("dropout = {value}"), ":27: objective.dropout: is ");
        for key in ["beta1", "beta2"] {
            let expected = format!(":30: optimizer.{key}: is ");
            check("learning_rate = 0.01", &format!("{key} = {value}"), &expected);
        }
    }
    for value in ["0.0", "-1.0", "nan", "inf"] {
        for key in ["learning_rate", "epsilon", "epsilon2", "clip_norm"] {
            let expected = format!(":30: optimizer.{key}: is ");
            check("learning_rate = 0.01", &format!("{key} = {value}"), &expected);
        }
        check("steps = 5", &format!("learning_rate = {value}"), ":38: classifier.learning_rate: is ");
    }
    for value in ["-0.1", "nan", "inf"] {
        check("learning_rate = 0.01", &format!("weight_decay = {value}"), ":30: optimizer.weight_decay: is ");
    }
    check(
        "steps = 12\nwarmup_steps = 4",
        "steps = 0\nwarmup_steps = 0",
        ":33: schedule.steps: is 0, which is allowed only with init",
    );
    check("steps = 12", "steps = 3", ":33: schedule.steps: is 3, but warmup_steps and decay_steps are more");
    check(
        "\"stable\"",
        "\"cosine\"\ndecay_steps = 2",
        ":36: schedule.decay_steps: has a meaning for the stable",
    );
    for value in ["-0.1", "1.1", "nan"] {
        let expected = format!(":36: schedule.min_factor: is {}", value.replace("nan", "NaN"));
        check("\"stable\"", &format!("\"stable\"\nmin_factor = {value}"), &expected);
    }
    check(
        "\"stable\"",
        "\"inverse-sqrt\"\nmin_factor = 0.1",
        ":36: schedule.min_factor: has no meaning for the inverse-sqrt",
    );
    check("\"stable\"", "\"stable\"\ndecay_steps = 9", ":33: schedule.steps: is 12, but");
    check("batch_size = 4", "batch_size = 0", ":42: validation.batch_size: is 0");
    check("checkpoint_every = 5", "checkpoint_every = 0", ":5: checkpoint_every: is 0");
    check(
        "num_decoder_layers = 3",
        "num_decoder_layers = 1",
        ":38: classifier.steps: must be 0 for a decoder of",
    );
}

#[test]
fn optimizers() {
    let optimizer = |keys: &str, expected: &str| check("learning_rate = 0.01", keys, expected);
    optimizer(
        "kind = \"sgd\"",
        ":30: optimizer.kind: unknown optimiser `sgd`: there are adamw and adafactor",
    );
    for key in ["decay_exponent", "clip_threshold", "epsilon1"] {
        let expected = format!(":30: optimizer.{key}: has a meaning for adafactor alone");
        optimizer(&format!("{key} = 0.5"), &expected);
        for value in ["0.0", "-1.0", "nan"] {
            let expected = format!(":31: optimizer.{key}: is ");
            optimizer(&format!("kind = \"adafactor\"\n{key} = {value}"), &expected);
        }
    }
    optimizer("kind = \"adafactor\"\ndecay_exponent = 1.1", ":31: optimizer.decay_exponent: is 1.1, but");
    for key in ["beta2", "epsilon"] {
        let expected = format!(":31: optimizer.{key}: has a meaning for adamw alone");
        optimizer(&format!("kind = \"adafactor\"\n{key} = 0.5"), &expected);
    }
    for value in ["1.0", "-0.1", "nan"] {
        optimizer(&format!("ema_decay = {value}"), ":30: optimizer.ema_decay: is ");
        optimizer(&format!("kind = \"adafactor\"\nbeta1 = {value}"), ":31: optimizer.beta1: is ");
    }
    optimizer("accumulate = 0", ":30: optimizer.accumulate: is 0, but must be positive");
    optimizer("accumulate = 1.5", ":30: optimizer.accumulate: invalid type: floating point `1.5`");
}

#[test]
fn a_missing_file_is_named() {
    let error = TrainConfig::load(Path::new("no/such.toml"), &[]).err().unwrap().to_string();
    assert!(error.starts_with("cannot read no/such.toml: No such file"), "{error}");
}

#[test]
fn overrides_replace_values_of_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.toml");
    std::fs::write(&path, configuration(Path::new("folder"), "model")).unwrap();
    let load = |overrides: &[&str]| {
        TrainConfig::load(&path, &overrides.iter().map(|&argument| argument.to_owned()).collect::<Vec<_>>())
    };
    let config = load(&["schedule.steps=20", "optimizer.kind=adafactor", "output=elsewhere"]).unwrap();
    assert_eq!((config.schedule.steps, config.optimizer.kind), (20, OptimizerKind::Adafactor));
    assert_eq!(config.output, Path::new("elsewhere"));
    for (argument, expected) in [
        ("schedule.steps=many", "schedule.steps: invalid type: string \"many\", expected u64"),
        ("schedule.steps=0", "schedule.steps: is 0, but warmup_steps"),
        ("schedule.stepps=1", "schedule.stepps: unknown field `stepps`"),
        ("seed", "expected KEY=VALUE"),
    ] {
        let error = load(&["seed=2", argument]).unwrap_err().to_string();
        assert!(error.starts_with(&format!("--set {argument}: {expected}")), "{error}");
    }
}

#[test]
fn the_configurations_of_the_project_load() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/train");
    let files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(!files.is_empty());
    for file in files {
        TrainConfig::load(&file, &[]).unwrap();
    }
}

#[test]
fn a_network_is_given_or_taken_over() {
    let text = configuration(Path::new("folder"), "model");
    let folder = tempfile::tempdir().unwrap();
    let load = |text: String| {
        let path = folder.path().join("run.toml");
        std::fs::write(&path, text).unwrap();
        TrainConfig::load(&path, &[])
    };
    let message = |text: String| load(text).unwrap_err().to_string();
    let start = text.find("[model]").unwrap();
    let end = text.find("[data]").unwrap();
    let without_model = format!("{}{}", &text[..start], &text[end..]);
    assert!(message(without_model.clone()).contains("model: is missing, and so is init"));
    let tokenizer = "tokenizer = \"folder/tokenizer.json\"\n";
    assert!(message(text.replace(tokenizer, "")).contains("tokenizer: is missing, which only init"));
    let taken_over = load(without_model.replace(tokenizer, "init = \"some/T5\"\n")).unwrap();
    assert_eq!(taken_over.tokenizer_file(), Path::new("some/T5/tokenizer.json"));
}
