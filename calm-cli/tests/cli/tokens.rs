//! Where sources and outputs begin and end: what tokenizers and configurations say of it.

use std::path::Path;

use serde_json::{Value, json};

use crate::command::{complaint, copied_checkpoint, generate, printed, write_tokenizer};

fn edit(file: &Path, change: impl FnOnce(&mut Value)) {
    let text = std::fs::read_to_string(file).unwrap_or_else(|_| "{}".to_owned());
    let mut value = serde_json::from_str(&text).unwrap();
    change(&mut value);
    std::fs::write(file, value.to_string()).unwrap();
}

fn tokens(model: &Path, engine: &str) -> Vec<u64> {
    let arguments = ["--engine", engine, "--max-tokens", "12"];
    let input = "{\"input_ids\": [35, 37, 146, 131, 10, 30, 76, 167, 107, 50, 133, 144, 46, 191]}";
    let line: Value = serde_json::from_str(&printed(generate(model, &arguments, input))).unwrap();
    serde_json::from_value(line["tokens"].clone()).unwrap()
}

#[test]
fn outputs_begin_and_end_as_generation_config_says() {
    for engine in ["cpu", "libtorch"] {
        let model = copied_checkpoint();
        let [config, generation] =
            ["config.json", "generation_config.json"].map(|name| model.path().join(name));
        let all = tokens(model.path(), engine);
        let (last, end) =
            all.iter().enumerate().skip(2).find(|(i, token)| !all[..*i].contains(token)).unwrap();
        for file in [&generation, &config] {
            edit(file, |keys| keys["eos_token_id"] = json!([200, end]));
            assert_eq!(tokens(model.path(), engine), all[..=last], "{engine}: {}", file.display());
            if *file == generation {
                std::fs::remove_file(file).unwrap();
            }
        }
        edit(&config, |keys| keys["eos_token_id"] = 1.into());

        edit(&generation, |keys| keys["decoder_start_token_id"] = 9.into());
        let from_generation = tokens(model.path(), engine);
        std::fs::remove_file(&generation).unwrap();
        edit(&config, |keys| keys["decoder_start_token_id"] = 9.into());
        assert_eq!(tokens(model.path(), engine), from_generation, "{engine}");
        assert_ne!(from_generation, all);
    }
}

#[test]
fn sources_are_whole_and_end_whatever_a_tokenizer_was_last_used_for() {
    let model = copied_checkpoint();
    let tokenizer = model.path().join("tokenizer.json");
    write_tokenizer(&tokenizer);
    let input = "{\"source\": \"one two three four five\"}\n{\"source\": \"six\"}\n";
    let run = || printed(generate(model.path(), &["--max-tokens", "6"], input));
    let expected = run();
    let padding = json!({
        "strategy": { "Fixed": 40 }, "direction": "Right", "pad_to_multiple_of": null,
        "pad_id": 0, "pad_type_id": 0, "pad_token": "<pad>",
    });
    edit(&tokenizer, |file| file["padding"] = padding);
    assert_eq!(run(), expected);
    let truncation =
        json!({ "direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0 });
    edit(&tokenizer, |file| file["truncation"] = truncation);
    assert_eq!(run(), expected);
    edit(&tokenizer, |file| file["post_processor"] = Value::Null);
    assert_eq!(run(), expected);
    edit(&tokenizer, |file| file["added_tokens"] = json!([]));
    assert_eq!(run(), expected);
}

#[test]
fn tokenizers_that_do_not_serve_are_refused_with_the_reason() {
    let model = copied_checkpoint();
    let tokenizer = model.path().join("tokenizer.json");
    let said = || {
        complaint(&generate(model.path(), &[], "{\"source\": \"one\"}"))
            .replace(model.path().to_str().unwrap(), "DIR")
    };

    std::fs::write(model.path().join("spiece.model"), "\0").unwrap();
    let command = "T.from_pretrained('DIR').save_pretrained('DIR')";
    let found = said();
    assert!(found.starts_with("standard input:1: a source, but DIR holds no tokenizer.json"), "{found}");
    assert!(found.contains(command) && found.ends_with("makes one of spiece.model"), "{found}");

    write_tokenizer(&tokenizer);
    edit(&model.path().join("config.json"), |keys| keys["eos_token_id"] = 9.into());
    let found = said();
    let expected =
        "DIR/tokenizer.json: it ends a text with token 1, `</s>`, but eos_token_id of config.json is 9";
    assert!(found.starts_with(expected), "{found}");

    let text = std::fs::read_to_string(&tokenizer).unwrap();
    let place = text.find("\"decoder\": {").unwrap() + 20;
    std::fs::write(&tokenizer, &text[..place]).unwrap();
    let found = said();
    assert!(found.starts_with("DIR/tokenizer.json: EOF while parsing"), "{found}");

    let letters = text.replacen("[\n        \"s\"", &format!("[\n        \"{}\"", "s".repeat(200_000)), 1);
    assert_ne!(letters, text);
    std::fs::write(&tokenizer, letters).unwrap();
    let found = said();
    assert!(found.starts_with("DIR/tokenizer.json: the entry `ssss"), "{found}");
}
