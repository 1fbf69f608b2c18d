use std::io::Read;
use std::path::Path;

use calm_checkpoint::{GgufTokens, Tokenizer};
use calm_gguf::Gguf;
use flate2::read::GzDecoder;
use serde::Deserialize;
use tempfile::TempDir;

use crate::made_file::{ARRAY, BOOL, I32, STRING, U32, array, header, pair, string};

/// A text with the tokens that llama.cpp has for it.
#[derive(Deserialize)]
struct Golden {
    text: String,
    /// With the names of control tokens as text.
    ids: Vec<u32>,
    /// With control tokens where their names are.
    ids_special: Vec<u32>,
}

fn unpacked(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(name);
    let mut bytes = Vec::new();
    GzDecoder::new(std::fs::File::open(path).unwrap()).read_to_end(&mut bytes).unwrap();
    bytes
}

/// The metadata of SmolLM2-135M-Instruct's file.
pub(crate) fn smollm2() -> (TempDir, Gguf) {
    opened(&unpacked("golden/smollm2/metadata.gguf.gz"))
}

pub(crate) fn opened(bytes: &[u8]) -> (TempDir, Gguf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.gguf");
    std::fs::write(&path, bytes).unwrap();
    let gguf = Gguf::open(&path).unwrap();
    (folder, gguf)
}

#[test]
fn tokens_of_smollm2_are_those_of_llama_cpp() {
    let (_folder, gguf) = smollm2();
    let tokenizer = Tokenizer::of_gguf(&gguf).unwrap();
    // Texts from the corpus, and texts that are made up of what tokenizers differ in.
    let golden = ["golden/smollm2/tokens.jsonl.gz", "tokens/smollm2_llama_cpp.jsonl.gz"];
    let golden = golden.map(|name| String::from_utf8(unpacked(name)).unwrap()).concat();
    let (mut texts, mut with_control) = (0, 0);
    let mut wrong = Vec::new();
    for line in golden.lines() {
        let golden: Golden = serde_json::from_str(line).unwrap();
        for (tokens, expected) in [
            (tokenizer.encode_plain(&golden.text).unwrap(), &golden.ids),
            (tokenizer.encode(&golden.text).unwrap(), &golden.ids_special),
        ] {
            if tokens != *expected {
                wrong.push(format!("{:?}: {tokens:?}, not {expected:?}", golden.text));
            }
        }
        texts += 1;
        with_control += usize::from(golden.ids != golden.ids_special);
    }
    assert!(wrong.is_empty(), "{} of {} differ:\n{}", wrong.len(), 2 * texts, wrong.join("\n"));
    assert!(
        texts == 557 + 2059 && with_control > 100,
        "{texts} texts, {with_control} of them with control tokens"
    );
}

#[test]
fn texts_come_back_without_control_tokens() {
    let (_folder, gguf) = smollm2();
    let tokenizer = Tokenizer::of_gguf(&gguf).unwrap();
    let text = "naïve 語 😀\n\n  1234 <|im_end|>";
    assert_eq!(tokenizer.decode(&tokenizer.encode_plain(text).unwrap()).unwrap(), text);
    let with_control = tokenizer.encode(text).unwrap();
    assert_eq!(with_control.last(), Some(&2));
    assert_eq!(tokenizer.decode(&with_control).unwrap(), "naïve 語 😀\n\n  1234 ");
    assert_eq!(tokenizer.vocab_size(), 49_152);
}

#[test]
fn special_tokens_are_those_that_the_file_names() {
    let (_folder, gguf) = smollm2();
    let expected = GgufTokens {
        begin: Some(1),
        end: Some(2),
        // `<|endoftext|>` ends outputs, too.
        ends: vec![2, 0],
        pad: Some(2),
        unknown: Some(0),
        adds_begin: false,
        adds_end: false,
    };
    assert_eq!(GgufTokens::read(&gguf).unwrap(), expected);
}

/// Texts with the tokens that SentencePiece has for them, and their text again.
#[derive(Deserialize)]
struct Pieces {
    tokenizer: String,
    texts: Vec<PieceText>,
}

#[derive(Deserialize)]
struct PieceText {
    text: String,
    ids: Vec<u32>,
    decoded: String,
}

fn sentencepiece(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/sentencepiece").join(name)
}

#[test]
fn tokens_of_unigram_and_bpe_models_are_those_of_sentencepiece() {
    let golden: Vec<Pieces> =
        serde_json::from_slice(&std::fs::read(sentencepiece("golden.json")).unwrap()).unwrap();
    for golden in &golden {
        let gguf = Gguf::open(&sentencepiece(&format!("{}.gguf", golden.tokenizer))).unwrap();
        let tokenizer = Tokenizer::of_gguf(&gguf).unwrap();
        let is_t5 = golden.tokenizer == "t5";
        // What each kind puts around a text.
        let framed = |ids: &[u32]| if is_t5 { [ids, &[1]].concat() } else { [&[1], ids].concat() };
        for golden in &golden.texts {
            let tokens = tokenizer.encode_plain(&golden.text).unwrap();
            assert_eq!(tokens, framed(&golden.ids), "{:?}", golden.text);
            // SentencePiece writes ` \u{2047} ` for what is unknown, and tokenizers nothing.
            if !golden.ids.contains(&if is_t5 { 2 } else { 0 }) {
                assert_eq!(tokenizer.decode(&tokens).unwrap(), golden.decoded);
            }
        }
        let (end, unknown) = if is_t5 { (1, 2) } else { (2, 0) };
        let text = "a</s>a<unk>";
        let a = tokenizer.encode_plain("a").unwrap();
        let a = if is_t5 { &a[..a.len() - 1] } else { &a[1..] };
        assert_eq!(tokenizer.encode(text).unwrap(), framed(&[a, &[end], a, &[unknown]].concat()));
        let plain = tokenizer.encode_plain(text).unwrap();
        let plain = if is_t5 { &plain[..plain.len() - 1] } else { &plain[1..] };
        assert!(!plain.contains(&end), "{plain:?}");
    }
}

/// A file with a byte-level tokenizer of three tokens, in which the values of some keys are others.
fn byte_level(changes: &[(&str, Option<(u32, Vec<u8>)>)]) -> Vec<u8> {
    let strings = |texts: &[&str]| {
        array(STRING, texts.len() as u64, &texts.iter().flat_map(string).collect::<Vec<_>>())
    };
    let numbers = |numbers: &[i32]| {
        array(I32, numbers.len() as u64, &numbers.iter().flat_map(|n| n.to_le_bytes()).collect::<Vec<_>>())
    };
    let mut pairs = vec![
        ("model", STRING, string("gpt2")),
        ("pre", STRING, string("gpt-2")),
        ("tokens", ARRAY, strings(&["<s>", "a", "Ġ", "Ġa"])),
        ("token_type", ARRAY, numbers(&[3, 1, 1, 1])),
        ("merges", ARRAY, strings(&["Ġ a"])),
    ];
    for (key, value) in changes {
        pairs.retain(|(other, ..)| other != key);
        pairs.extend(value.clone().map(|(value_type, value)| (*key, value_type, value)));
    }
    let count = pairs.len() as u64;
    let pairs = pairs.into_iter();
    let pairs = pairs.flat_map(|(key, kind, value)| pair(&format!("tokenizer.ggml.{key}"), kind, &value));
    header(3, 0, count).into_iter().chain(pairs).collect()
}

#[test]
fn what_is_put_around_a_text_is_what_the_file_says() {
    let token = |id: u32| Some((U32, id.to_le_bytes().to_vec()));
    let truth = Some((BOOL, vec![1]));
    for (changes, expected) in [
        (vec![], vec![3]),
        (vec![("bos_token_id", token(0))], vec![3]),
        (vec![("bos_token_id", token(0)), ("add_bos_token", truth.clone())], vec![0, 3]),
        (vec![("eos_token_id", token(0)), ("add_eos_token", truth.clone())], vec![3, 0]),
        (vec![("add_bos_token", truth.clone()), ("add_eos_token", truth)], vec![3]),
        // Llama 3's texts have a beginning unless the file says otherwise.
        (vec![("bos_token_id", token(0)), ("pre", Some((STRING, string("llama-bpe"))))], vec![0, 3]),
        (vec![("pre", None)], vec![3]),
        // Without types nothing controls.
        (vec![("token_type", None)], vec![3]),
    ] {
        let (_folder, gguf) = opened(&byte_level(&changes));
        assert_eq!(Tokenizer::of_gguf(&gguf).unwrap().encode(" a").unwrap(), expected, "{changes:?}");
    }
}

#[test]
fn tokenizers_that_cannot_be_used_are_refused_with_the_key() {
    let text = |text: &str| Some((STRING, string(text)));
    let strings = |texts: &[&str]| {
        let items: Vec<u8> = texts.iter().flat_map(string).collect();
        Some((ARRAY, array(STRING, texts.len() as u64, &items)))
    };
    for (change, expected) in [
        (("model", None), "FILE has no key `tokenizer.ggml.model`"),
        (
            ("model", text("rwkv")),
            "FILE: key `tokenizer.ggml.model`: a tokenizer `rwkv`, which is not supported: there are gpt2, llama and \
             t5",
        ),
        (
            ("pre", text("qwen2")),
            "FILE: key `tokenizer.ggml.pre`: words as `qwen2` has them, which is not supported: there are smollm, \
             gpt-2, gpt2, llama-bpe, default",
        ),
        (("tokens", None), "FILE has no key `tokenizer.ggml.tokens`"),
        (
            ("tokens", text("a")),
            "FILE: key `tokenizer.ggml.tokens`: it should be an array, and is the text `a`",
        ),
        (("tokens", strings(&["a"])), "FILE: key `tokenizer.ggml.token_type`: 4 values for 1 tokens"),
        (("merges", None), "FILE has no key `tokenizer.ggml.merges`"),
        (
            ("merges", strings(&["Ġ a", "Ġa"])),
            "FILE: key `tokenizer.ggml.merges`: value 1 is not two tokens with a space between them",
        ),
        (("merges", strings(&["Ġ b"])), "FILE: Token `b` out of vocabulary"),
        (
            ("eos_token_id", Some((U32, vec![4, 0, 0, 0]))),
            "FILE: key `tokenizer.ggml.eos_token_id`: token 4 of a vocabulary of 4",
        ),
        (("model", text("t5")), "FILE has no key `tokenizer.ggml.scores`"),
        (("model", text("llama")), "FILE has no key `tokenizer.ggml.scores`"),
    ] {
        let (_folder, gguf) = opened(&byte_level(std::slice::from_ref(&change)));
        let error = Tokenizer::of_gguf(&gguf).err().unwrap().to_string();
        assert_eq!(error.replace(&gguf.path().display().to_string(), "FILE"), expected);
    }
}

#[test]
fn a_damaged_table_of_characters_is_an_error() {
    let bytes = std::fs::read(sentencepiece("t5.gguf")).unwrap();
    let key = b"tokenizer.ggml.precompiled_charsmap";
    let at = bytes.windows(key.len()).position(|window| window == key).unwrap() + key.len() + 16;
    for seed in 0..20_u64 {
        let mut bytes = bytes.clone();
        for (number, byte) in bytes[at..at + 240_000].iter_mut().enumerate() {
            *byte ^= (seed + 1).wrapping_mul(number as u64 * 2_654_435_761).to_le_bytes()[2];
        }
        let (_folder, gguf) = opened(&bytes);
        // Either is refused, or gives some tokens.
        if let Ok(tokenizer) = Tokenizer::of_gguf(&gguf) {
            let _ = tokenizer.encode("ﬁ ② ５ e\u{301} naïve");
        }
    }
}
