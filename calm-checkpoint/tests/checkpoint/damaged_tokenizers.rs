use calm_checkpoint::{Error, Tokenizer};
use serde_json::{Value, json};

use crate::golden::{folder, tokenizer};

/// Loads a tokenizer and uses it.
fn attempt(text: &str) -> Result<(), Error> {
    let folder = folder(&[("tokenizer.json", text)]);
    let tokenizer = Tokenizer::load(&folder.path().join("tokenizer.json"))?;
    for text in ["a bad cab", "", "«été» 漢字 \0"] {
        tokenizer.decode(&tokenizer.encode(text)?)?;
    }
    tokenizer.decode(&[]).map(drop)
}

/// The message of a tokenizer that must not load or not work.
fn complaint(text: &str) -> String {
    let message = attempt(text).unwrap_err().to_string();
    let (_, rest) = message.split_once("tokenizer.json: ").unwrap_or_else(|| panic!("no file in {message}"));
    rest.to_owned()
}

/// Puts `value` at every place of a document in turn.
fn replaced_everywhere(document: &Value, value: &Value, each: &mut dyn FnMut(&Value)) {
    fn places(value: &Value, place: &str, found: &mut Vec<String>) {
        found.push(place.to_owned());
        let parts: Vec<(String, &Value)> = match value {
            Value::Object(map) => map.iter().map(|(key, value)| (key.replace('/', "~1"), value)).collect(),
            Value::Array(list) => list.iter().enumerate().map(|(i, value)| (i.to_string(), value)).collect(),
            _ => Vec::new(),
        };
        parts.into_iter().for_each(|(part, value)| places(value, &format!("{place}/{part}"), found));
    }
    let mut found = Vec::new();
    places(document, "", &mut found);
    for place in found {
        let mut changed = document.clone();
        *changed.pointer_mut(&place).unwrap() = value.clone();
        each(&changed);
    }
}

#[test]
fn a_tokenizer_that_is_cut_off_anywhere_is_named() {
    let text = tokenizer("padding and truncation").to_string();
    attempt(&text).unwrap();
    for length in 0..text.len() {
        if text.is_char_boundary(length) {
            assert!(complaint(&text[..length]).contains("EOF while parsing"), "{length}");
        }
    }
}

#[test]
fn a_wrong_value_anywhere_is_an_error_or_none_but_never_a_panic() {
    let document = tokenizer("padding and truncation");
    for value in [
        Value::Null,
        json!(-1),
        json!(u64::MAX),
        json!(""),
        json!("x"),
        json!([]),
        json!({}),
        json!([["", 0.0]]),
    ] {
        replaced_everywhere(&document, &value, &mut |changed| drop(attempt(&changed.to_string())));
    }
}

#[test]
fn parts_that_make_the_crate_panic_are_errors() {
    let with = |key: &str, value: Value| {
        let mut document = tokenizer("as it should be");
        document[key] = value;
        complaint(&document.to_string())
    };
    let template = |single: Value, ids: Value| {
        let tokens = json!({ "</s>": { "id": "</s>", "ids": ids, "tokens": ["</s>"] } });
        json!({ "type": "TemplateProcessing", "single": single, "pair": [], "special_tokens": tokens })
    };
    let text = json!({ "Sequence": { "id": "A", "type_id": 0 } });
    let end = json!({ "SpecialToken": { "id": "</s>", "type_id": 0 } });
    let prefix = json!({ "type": "BPE", "vocab": { "a": 0, "b": 1 }, "merges": ["a b"], "continuing_subword_prefix": "##" });
    let unknown = template(json!([text, { "SpecialToken": { "id": "<eos>", "type_id": 0 } }]), json!([1]));
    for (key, value) in [
        ("post_processor", unknown),
        ("pre_tokenizer", json!({ "type": "FixedLength", "length": 0 })),
        ("normalizer", json!({ "type": "Precompiled", "precompiled_charsmap": "AAA" })),
        ("post_processor", template(json!([{ "Sequence": { "id": "B", "type_id": 0 } }]), json!([1]))),
        ("model", prefix),
    ] {
        let message = with(key, value);
        assert!(message.contains("the tokenizer is damaged: "), "{key}: {message}");
    }
    let message = with("post_processor", template(json!([end]), json!([1])));
    assert_eq!(message, "its template leaves the text out");
}

#[test]
fn entries_as_long_as_a_book_are_refused_before_they_overflow_the_stack() {
    let with = |length: usize, place: &str| {
        let mut document = tokenizer("as it should be");
        *document.pointer_mut(place).unwrap() = "a".repeat(length).into();
        document.to_string()
    };
    for place in ["/model/vocab/5/0", "/added_tokens/2/content"] {
        attempt(&with(4096, place)).unwrap();
        for length in [4097, 500_000] {
            let message = complaint(&with(length, place));
            let expected =
                format!("the entry `aaaaaaaaaaaaaaaaaaaa...` of its vocabulary has {length} bytes");
            assert!(message.starts_with(&expected), "{message}");
        }
    }
}

/// Ten steps that each make a text ten times longer would fill any memory.
#[test]
fn steps_that_make_a_text_too_long_are_refused() {
    let replace =
        |pattern: Value, content: &str| json!({ "type": "Replace", "pattern": pattern, "content": content });
    let cases = [
        ("normalizer", "normalizers", replace(json!({ "String": "a" }), "aaaaaaaaaa")),
        ("normalizer", "normalizers", replace(json!({ "Regex": "(?=a)" }), "aaaaaaaaaa")),
        ("normalizer", "normalizers", json!({ "type": "Precompiled", "precompiled_charsmap": "" })),
        (
            "pre_tokenizer",
            "pretokenizers",
            json!({ "type": "Split", "pattern": { "Regex": "a".repeat(8193) },
            "behavior": "Isolated", "invert": false }),
        ),
        ("decoder", "decoders", replace(json!({ "String": "" }), "aaaaaaaaaa")),
    ];
    for (part, list, step) in cases {
        let mut document = tokenizer("as it should be");
        document[part] = json!({ "type": "Sequence", list: vec![&step; 10] });
        let message = complaint(&document.to_string());
        let is_expected = message.starts_with(&format!("its {part} may make a text "))
            || message == "a regular expression of 8193 bytes, which may have 8192";
        assert!(is_expected, "{message}");
    }
    let bytes = json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true });
    for (times, is_refused) in [(10, false), (15, true)] {
        let mut document = tokenizer("as it should be");
        document["pre_tokenizer"] = json!({ "type": "Sequence", "pretokenizers": vec![&bytes; times] });
        assert_eq!(attempt(&document.to_string()).is_err(), is_refused, "{times}");
    }
}

/// Vocabularies are written by counting: 4 billion steps for a file of a few bytes.
#[test]
fn numbers_of_tokens_beyond_all_vocabularies_are_refused() {
    let words = json!({ "type": "WordLevel", "unk_token": "<unk>", "vocab": { "<unk>": 0, "a": u32::MAX } });
    for (place, value) in [("/model", words), ("/added_tokens/2/id", json!(1 << 24))] {
        let mut document = tokenizer("as it should be");
        *document.pointer_mut(place).unwrap() = value;
        let message = complaint(&document.to_string());
        assert!(message.ends_with(", but numbers go to 16777215"), "{message}");
    }
}

#[test]
fn what_is_no_tokenizer_says_so() {
    assert_eq!(complaint("{}"), "it is no tokenizer, which has a key `model`");
    assert_eq!(complaint("[1]"), "it is no tokenizer, which has a key `model`");
    assert!(complaint("hello").starts_with("expected value at line 1 column 1"));
    let folder = folder(&[]);
    let path = folder.path().join("tokenizer.json");
    std::fs::write(&path, b"{\"model\": \"\xff\"}").unwrap();
    let message = Tokenizer::load(&path).err().unwrap().to_string();
    assert!(message.contains("tokenizer.json: it is no text: invalid utf-8"), "{message}");
}
