//! What is checked before the first step.

use std::path::Path;

use calm_checkpoint::T5Config;
use calm_train::{TrainConfig, TrainOptions, Trained, train};
use serde_json::{Value, json};

use crate::runs::{OPTIONS, bytes, error, run};
use crate::tiny::Tiny;

fn has_begun(config: &TrainConfig) -> bool {
    config.checkpoints.join("log.jsonl").exists()
}

fn init(config: &mut TrainConfig, dir: &Path) {
    (config.model, config.init) = (None, Some(dir.to_owned()));
}

#[test]
fn a_decoder_of_one_layer_has_no_exit_classifier() {
    let tiny = Tiny::new();
    let mut small = tiny.config("small");
    small.model.as_mut().unwrap().num_decoder_layers = 1;
    small.classifier.steps = 0;
    run(&small);
    let mut config = tiny.config("model");
    init(&mut config, &small.output);
    let message = error(&config);
    assert!(message.contains("small cannot be trained further: its decoder has one layer"), "{message}");
    assert!(message.ends_with("set classifier.steps = 0") && !has_begun(&config), "{message}");
    config.classifier.steps = 0;
    run(&config);
}

#[test]
fn a_vocabulary_with_gaps_has_an_embedding_for_its_largest_token() {
    let tiny = Tiny::new();
    let words = [("<pad>", 0), ("</s>", 1), ("<unk>", 2), ("un", 3), ("one", 40)];
    let vocabulary: serde_json::Map<String, Value> =
        words.into_iter().map(|(word, id)| (word.to_owned(), id.into())).collect();
    let special = |id: u32, content: &str| {
        json!({ "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true })
    };
    let tokenizer = json!({
        "version": "1.0",
        "added_tokens": [special(0, "<pad>"), special(1, "</s>"), special(2, "<unk>")],
        "pre_tokenizer": { "type": "Whitespace" },
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{ "Sequence": { "id": "A", "type_id": 0 } }, { "SpecialToken": { "id": "</s>", "type_id": 0 } }],
            "pair": [{ "Sequence": { "id": "A", "type_id": 0 } }, { "Sequence": { "id": "B", "type_id": 0 } }],
            "special_tokens": { "</s>": { "id": "</s>", "ids": [1], "tokens": ["</s>"] } },
        },
        "model": { "type": "WordLevel", "vocab": vocabulary, "unk_token": "<unk>" },
    });
    let mut config = tiny.config("model");
    config.tokenizer = Some(tiny.path("gaps.json"));
    std::fs::write(tiny.path("gaps.json"), tokenizer.to_string()).unwrap();
    assert!(matches!(train(&config, &OPTIONS).unwrap(), Trained::Finished(_)));
    assert_eq!(T5Config::load(&config.output.join("config.json")).unwrap().vocab_size, 41);
}

#[test]
fn a_model_of_others_stays_where_it_is() {
    let tiny = Tiny::new();
    let [mut first, second] = ["first", "second"].map(|name| tiny.config(name));
    run(&second);
    first.output.clone_from(&second.output);
    let before = bytes(&second);
    let message = error(&first);
    assert!(message.contains("second already holds a model, which this run has not written"), "{message}");
    assert!(message.contains("--overwrite") && !has_begun(&first), "{message}");
    assert!(before == bytes(&second));

    let overwriting = TrainOptions { overwrite: true, ..OPTIONS };
    assert!(matches!(train(&first, &overwriting).unwrap(), Trained::Finished(_)));
    // From here on it is the run's own model, also where a kill met the writing of it.
    run(&first);
    let file = first.checkpoints.join("published.json");
    let mut published: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    published["fingerprint"] = Value::Null;
    std::fs::write(&file, published.to_string()).unwrap();
    first.schedule.steps = 14;
    run(&first);
    // The other run's model is replaced now.
    assert!(error(&second).contains("which this run has not written"));
    std::fs::write(first.output.join("calm.agreement.json"), "{}").unwrap();
    assert!(error(&first).contains("which this run has not written"));
}

#[test]
fn the_output_is_a_folder_of_its_own() {
    let tiny = Tiny::new();
    let small = tiny.config("small");
    run(&small);
    let mut config = tiny.config("model");
    init(&mut config, &small.output);
    let spellings = [small.output.clone(), tiny.path("small.checkpoints/../small/.")];
    #[cfg(unix)]
    let spellings = {
        std::os::unix::fs::symlink(&small.output, tiny.path("link")).unwrap();
        [&spellings[..], &[tiny.path("link")]].concat()
    };
    for output in spellings {
        config.output = output;
        for overwrite in [false, true] {
            let options = TrainOptions { overwrite, ..OPTIONS };
            let message = train(&config, &options).unwrap_err().to_string();
            assert!(message.starts_with("output and init are the same folder, "), "{message}");
        }
    }
    config.output = tiny.path("not/yet");
    for checkpoints in ["not/./yet/", "not/yet/there/.."] {
        config.checkpoints = tiny.path(checkpoints);
        let message = error(&config);
        assert!(message.starts_with("output and checkpoints are the same folder, "), "{message}");
    }
    assert!(!tiny.path("not").exists());
}

/// What could not be drawn after the last step is no part of the log before the first.
#[test]
fn foreign_lines_of_the_log_are_dropped() {
    let tiny = Tiny::new();
    let config = tiny.config("model");
    std::fs::create_dir_all(&config.checkpoints).unwrap();
    std::fs::write(config.checkpoints.join("log.jsonl"), "{\"step\": 0, \"loss\": \"none\"}\nhello\n")
        .unwrap();
    run(&config);
}

#[test]
fn a_classifier_that_diverges_is_not_published() {
    let tiny = Tiny::new();
    let mut config = tiny.config("model");
    config.classifier.learning_rate = 3e38;
    let message = error(&config);
    assert!(message.starts_with("the exit classifier diverged; lower classifier.learning_rate"), "{message}");
    config.classifier.learning_rate = 1e-3;
    run(&config);
}
