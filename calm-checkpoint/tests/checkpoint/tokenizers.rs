use calm_checkpoint::{Kept, LlamaConfig, SpecialTokens, T5Config, Tokenizer};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::golden::{folder, golden, load, tokenizer};

fn config(ends: Value) -> T5Config {
    load(&json!({ "vocab_size": 40, "eos_token_id": ends }).to_string(), None).unwrap()
}

fn folder_with(tokenizer: &Value) -> TempDir {
    folder(&[("tokenizer.json", &tokenizer.to_string())])
}

fn for_model(tokenizer: &Value, ends: Value) -> Result<Tokenizer, String> {
    let folder = folder_with(tokenizer);
    let loaded = Tokenizer::of_checkpoint(folder.path(), &config(ends)).map(Option::unwrap);
    loaded.map_err(|error| error.to_string().replace(&folder.path().display().to_string(), "DIR"))
}

/// A tokenizer whose vocabulary begins with other tokens than `<pad>`, `</s>` and `<unk>`.
fn renamed(base: &str, first: [&str; 3]) -> Value {
    let mut file = tokenizer(base);
    for (index, name) in first.into_iter().enumerate() {
        file["model"]["vocab"][index][0] = name.into();
        if file["added_tokens"].get(index).is_some() {
            file["added_tokens"][index]["content"] = name.into();
        }
    }
    file
}

#[test]
fn tokens_are_those_of_transformers_whatever_the_file_says_of_padding_and_ends() {
    let golden = golden();
    for case in &golden.tokenizers {
        let tokenizer = for_model(&case.file, 1.into()).unwrap();
        for (row, text) in golden.texts.iter().enumerate() {
            let tokens = tokenizer.encode(text).unwrap();
            assert_eq!(tokens, case.ids[row], "{}: {text:?}", case.name);
            let decoded = tokenizer.decode(&[&tokens[..], &[0, 0]].concat()).unwrap();
            assert_eq!(decoded, case.decoded[row], "{}: {text:?}", case.name);
        }
        assert_eq!(tokenizer.vocab_size(), 13);
    }
}

#[test]
fn a_byte_order_mark_is_no_part_of_a_tokenizer() {
    let text = format!("\u{feff}{}", tokenizer("as it should be"));
    let folder = folder(&[("tokenizer.json", &text)]);
    let tokenizer = Tokenizer::load(&folder.path().join("tokenizer.json")).unwrap();
    assert_eq!(tokenizer.encode("a").unwrap(), [8, 1]);
}

#[test]
fn texts_end_with_a_token_at_which_the_model_ends() {
    let ends = |file: &Value, ends: Value| {
        for_model(file, ends).map(|tokenizer| tokenizer.encode("a").unwrap().last().copied().unwrap())
    };
    let (usual, plain) = (tokenizer("as it should be"), tokenizer("no template"));
    for file in [&usual, &plain] {
        assert_eq!(ends(file, json!([5, 1])), Ok(1));
    }
    // `</s>` is where the vocabulary has it, and special tokens of other names may end texts too.
    assert_eq!(ends(&renamed("no template", ["</s>", "<pad>", "<unk>"]), 0.into()), Ok(0));
    assert_eq!(ends(&renamed("no template", ["<pad>", "<eos>", "<unk>"]), 1.into()), Ok(1));
    assert_eq!(ends(&renamed("no template", ["<eos>", "</s>", "<unk>"]), 0.into()), Ok(0));

    let check = |file: &Value, eos: Value, expected: &str| {
        let error = ends(file, eos).unwrap_err();
        assert!(error.starts_with(&format!("DIR/tokenizer.json: {expected}")), "{error}");
    };
    check(&usual, 4.into(), "it ends a text with token 1, `</s>`, but eos_token_id of config.json is 4");
    check(
        &plain,
        4.into(),
        "it puts no token behind a text, and eos_token_id of config.json is 4, which is `a` here and `</s>` is token 1",
    );
    check(
        &plain,
        30.into(),
        "it puts no token behind a text, and eos_token_id of config.json is 30, which is no token",
    );
    // Not special, so that nothing tells it from other pieces.
    check(&renamed("neither", ["<pad>", "<eos>", "<unk>"]), 1.into(), "it puts no token behind a text");
}

#[test]
fn generation_may_end_elsewhere_but_must_be_able_to_end() {
    let folder = folder_with(&tokenizer("as it should be"));
    let of_checkpoint = |ends: &str| {
        let config = load("{\"vocab_size\": 40}", Some(&format!("{{\"eos_token_id\": {ends}}}"))).unwrap();
        let loaded = Tokenizer::of_checkpoint(folder.path(), &config).map(Option::unwrap);
        loaded.map(|tokenizer| tokenizer.encode("a").unwrap()).map_err(|error| error.to_string())
    };
    assert_eq!(of_checkpoint("5").unwrap(), [8, 1]);
    assert_eq!(of_checkpoint("[30, 12]").unwrap(), [8, 1]);
    let error = of_checkpoint("[13, 30]").unwrap_err();
    assert!(error.contains("tokenizer.json: it has tokens 0 to 12, but eos_token_id"), "{error}");
}

#[test]
fn a_new_model_has_the_special_tokens_of_its_tokenizer() {
    let found = |file: &Value, names: Option<Value>| {
        let folder = folder_with(file);
        if let Some(names) = names {
            std::fs::write(folder.path().join("tokenizer_config.json"), names.to_string()).unwrap();
        }
        let loaded =
            Tokenizer::load(&folder.path().join("tokenizer.json")).and_then(Tokenizer::for_new_model);
        let found =
            loaded.map(|tokenizer| (tokenizer.special_tokens().unwrap(), tokenizer.encode("a").unwrap()));
        found.map_err(|error| error.to_string().replace(&folder.path().display().to_string(), "DIR"))
    };
    let tokens = |pad, end| Ok((SpecialTokens { pad, end }, vec![8, end]));
    for case in golden().tokenizers {
        assert_eq!(found(&case.file, None), tokens(0, 1), "{}", case.name);
    }
    assert_eq!(found(&renamed("no template", ["</s>", "<unk>", "<pad>"]), None), tokens(2, 0));
    assert_eq!(found(&renamed("no template", ["[PAD]", "<unk>", "</s>"]), None), tokens(0, 2));
    let named = |eos: Value, pad: &str| Some(json!({ "eos_token": eos, "pad_token": pad }));
    let other = renamed("no template", ["<unk>", "<eos>", "<fill>"]);
    assert_eq!(found(&other, named("<eos>".into(), "<fill>")), tokens(2, 1));
    assert_eq!(found(&other, named(json!({ "content": "<eos>", "lstrip": false }), "<fill>")), tokens(2, 1));

    let check = |names: Option<Value>, expected: &str| {
        let error = found(&other, names).unwrap_err();
        assert!(error.starts_with(&format!("DIR/{expected}")), "{error}");
    };
    check(None, "tokenizer.json: it puts no token behind a text and has no special token `</s>`");
    check(
        Some(json!({ "eos_token": "<eos>" })),
        "tokenizer.json: it has no token `<pad>` to fill up batches",
    );
    check(
        named("<end>".into(), "<fill>"),
        "tokenizer.json: it puts no token behind a text and has no special token `<end>`",
    );
    check(named(7.into(), "<fill>"), "tokenizer_config.json: eos_token: expected the text of a token");
}

#[test]
fn tokenizers_of_other_formats_are_met_with_the_command_that_converts_them() {
    let error = |files: &[(&str, &str)], name: &str| {
        let folder = folder(files);
        let error = Tokenizer::load(&folder.path().join(name)).err().unwrap().to_string();
        error.replace(&folder.path().display().to_string(), "DIR")
    };
    assert_eq!(error(&[], "tokenizer.json"), "DIR holds no tokenizer.json, which texts need");
    assert!(error(&[], "other.json").starts_with("cannot read DIR/other.json: No such file"));
    let command = "T.from_pretrained('DIR').save_pretrained('DIR')";
    for file in ["spiece.model", "vocab.txt"] {
        let message = error(&[(file, "\0\u{1}")], "tokenizer.json");
        assert!(
            message.starts_with("DIR holds no tokenizer.json, which texts need; `python3 -c "),
            "{message}"
        );
        assert!(message.contains(command) && message.ends_with(&format!("makes one of {file}")), "{message}");
        let message = error(&[(file, "\0\u{1}")], file);
        assert!(message.starts_with(&format!("DIR/{file}: it is no tokenizer.json")), "{message}");
        assert!(message.contains(command), "{message}");
    }
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n";
    let message = error(&[("tokenizer.json", pointer)], "tokenizer.json");
    assert!(message.starts_with("DIR/tokenizer.json: it is a pointer of Git LFS"), "{message}");
}

/// A decoder goes on from a text, so that nothing is put behind one.
#[test]
fn prompts_begin_and_end_as_the_template_says() {
    let of_llama = |file: &Value, end: u32| {
        let folder = folder_with(file);
        let smol = LlamaConfig::published("smollm2-135m").unwrap();
        let config = LlamaConfig { vocab_size: 40, eos_token_id: vec![end], ..smol };
        Tokenizer::of_checkpoint(folder.path(), &config)
            .map(Option::unwrap)
            .map_err(|error| error.to_string())
    };
    let plain = of_llama(&tokenizer("no template"), 1).unwrap();
    assert_eq!(plain.encode("a bad").unwrap(), plain_ids("a bad"));
    assert_eq!(plain.kept(), Kept::End { first: 0 });
    // What ends an output is no part of its text, whether the tokenizer says so or not.
    let unmarked = of_llama(&tokenizer("neither"), 1).unwrap();
    assert_eq!(unmarked.decode(&[8, 1]).unwrap(), "a");

    let mut begins = tokenizer("as it should be");
    let single = begins["post_processor"]["single"].as_array_mut().unwrap();
    single.reverse();
    let begins = of_llama(&begins, 1).unwrap();
    assert_eq!(begins.encode("a bad").unwrap(), [&[1], &plain_ids("a bad")[..]].concat());
    assert_eq!(begins.kept(), Kept::End { first: 1 });

    let error = of_llama(&tokenizer("no template"), 30).err().unwrap();
    assert!(
        error.ends_with("it has tokens 0 to 12, but eos_token_id is 30, so that no output would end"),
        "{error}"
    );
}

/// The tokens of a text by themselves.
fn plain_ids(text: &str) -> Vec<u32> {
    let folder = folder_with(&tokenizer("no template"));
    let loaded = Tokenizer::load(&folder.path().join("tokenizer.json")).unwrap();
    loaded.encode(text).unwrap()
}
