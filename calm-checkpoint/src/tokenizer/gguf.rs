//! The tokenizer that a GGUF file's metadata describe, as the document that Hugging Face would have for it.
//!
//! The reference is llama.cpp's src/llama-vocab.cpp, whose names the metadata use.

use std::collections::HashMap;

use calm_gguf::{Array, Gguf, Value};
use serde_json::json;
use tokenizers::normalizers::Precompiled;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;

use super::limits::check;
use crate::Error;
use crate::gguf::GgufTokens;

/// Values of `tokenizer.ggml.token_type` (`enum llama_token_type` of llama.h).
mod token_type {
    pub(super) const NORMAL: i32 = 1;
    pub(super) const UNKNOWN: i32 = 2;
    pub(super) const CONTROL: i32 = crate::gguf::CONTROL as i32;
    pub(super) const USER_DEFINED: i32 = 4;
}

/// GPT-2's division into words, with the white space that it leaves at the end.
const GPT_2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

/// Llama 3's. Its `(?i:'s|...)` is written out, since a few letters beyond ASCII have these as lower case.
const LLAMA_3: &str = concat!(
    r"'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
);

/// How the words of a byte-level vocabulary are found: regular expressions, each of which divides the pieces
/// of those before it.
const PRE_TOKENIZERS: &[(&[&str], &[&str])] = &[
    (&["smollm"], &[r"\p{N}", GPT_2]),
    (&["gpt-2", "gpt2"], &[GPT_2]),
    (&["llama-bpe"], &[LLAMA_3]),
    (&["default"], &[r"[\p{P}$+<=>^~|]+", GPT_2, r"\p{N}+", r"[0-9][0-9][0-9]"]),
];

/// What stands for a space in vocabularies of SentencePiece.
const SPACE: &str = "\u{2581}";

/// The document.
pub(super) fn document(gguf: &Gguf) -> Result<serde_json::Value, Error> {
    let vocabulary = Vocabulary::read(gguf)?;
    let model = match gguf.require::<&str>("tokenizer.ggml.model")? {
        "gpt2" => byte_level(gguf, &vocabulary)?,
        "t5" => unigram(gguf, &vocabulary)?,
        "llama" => sentence_pieces(gguf, &vocabulary)?,
        other => {
            let reason =
                format!("a tokenizer `{other}`, which is not supported: there are gpt2, llama and t5");
            return Err(gguf.invalid("tokenizer.ggml.model", reason).into());
        }
    };
    let document = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": vocabulary.added(),
        "normalizer": model.normalizer,
        "pre_tokenizer": model.pre_tokenizer,
        "post_processor": frame(&vocabulary, &GgufTokens::read(gguf)?),
        "decoder": model.decoder,
        "model": model.model,
    });
    check(&document).map_err(|reason| gguf.invalid("tokenizer.ggml.tokens", reason))?;
    Ok(document)
}

/// The parts of a document that depend on the kind of the tokenizer.
struct Parts {
    normalizer: serde_json::Value,
    pre_tokenizer: serde_json::Value,
    decoder: serde_json::Value,
    model: serde_json::Value,
}

struct Vocabulary<'a> {
    tokens: Vec<&'a str>,
    /// The type of each token; all are normal where the file has no types.
    types: Vec<i32>,
}

impl<'a> Vocabulary<'a> {
    fn read(gguf: &'a Gguf) -> Result<Self, Error> {
        let tokens: Vec<&str> = gguf.list("tokenizer.ggml.tokens")?;
        let types = match gguf.metadata("tokenizer.ggml.token_type") {
            Some(_) => per_token(gguf, "tokenizer.ggml.token_type", tokens.len())?,
            None => vec![token_type::NORMAL; tokens.len()],
        };
        Ok(Vocabulary { tokens, types })
    }

    /// Each token with its number. Where two have one text, the last one is it, as in llama.cpp.
    fn numbers(&self) -> HashMap<&'a str, usize> {
        self.tokens.iter().enumerate().map(|(number, &token)| (token, number)).collect()
    }

    fn is_special(&self, number: usize) -> bool {
        matches!(self.types[number], token_type::CONTROL | token_type::UNKNOWN)
    }

    /// Tokens that are found in a text before anything else is.
    fn added(&self) -> Vec<serde_json::Value> {
        let is_added =
            |&number: &usize| self.is_special(number) || self.types[number] == token_type::USER_DEFINED;
        let added = (0..self.tokens.len()).filter(is_added);
        added
            .map(|number| {
                json!({
                    "id": number, "content": self.tokens[number], "special": self.is_special(number),
                    "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
                })
            })
            .collect()
    }
}

/// An array that has to have a value for each token.
fn per_token<'a, T: calm_gguf::FromValue<'a>>(
    gguf: &'a Gguf,
    key: &str,
    tokens: usize,
) -> Result<Vec<T>, Error> {
    let values: Vec<T> = gguf.list(key)?;
    match values.len() == tokens {
        true => Ok(values),
        false => Err(gguf.invalid(key, format!("{} values for {tokens} tokens", values.len())).into()),
    }
}

/// What is put before and behind a text.
fn frame(vocabulary: &Vocabulary<'_>, tokens: &GgufTokens) -> serde_json::Value {
    let begin = tokens.begin.filter(|_| tokens.adds_begin);
    let end = tokens.end.filter(|_| tokens.adds_end);
    let piece =
        |token: &u32| json!({"SpecialToken": {"id": vocabulary.tokens[*token as usize], "type_id": 0}});
    let text = |id: &str| json!({"Sequence": {"id": id, "type_id": 0}});
    let framed = |texts: &[&str]| -> Vec<serde_json::Value> {
        texts
            .iter()
            .flat_map(|id| begin.iter().map(piece).chain([text(id)]).chain(end.iter().map(piece)))
            .collect()
    };
    let special: serde_json::Map<String, serde_json::Value> = begin
        .iter()
        .chain(&end)
        .map(|&token| {
            let name = vocabulary.tokens[token as usize];
            (name.to_owned(), json!({"id": name, "ids": [token], "tokens": [name]}))
        })
        .collect();
    json!({
        "type": "TemplateProcessing", "single": framed(&["A"]), "pair": framed(&["A", "B"]), "special_tokens": special,
    })
}

/// Byte-level BPE, whose tokens are bytes written as printable characters.
fn byte_level(gguf: &Gguf, vocabulary: &Vocabulary<'_>) -> Result<Parts, Error> {
    const KEY: &str = "tokenizer.ggml.pre";
    let pre = gguf.get::<&str>(KEY)?.unwrap_or("default");
    let Some((_, splits)) = PRE_TOKENIZERS.iter().find(|(names, _)| names.contains(&pre)) else {
        let names: Vec<&str> = PRE_TOKENIZERS.iter().flat_map(|(names, _)| *names).copied().collect();
        let reason =
            format!("words as `{pre}` has them, which is not supported: there are {}", names.join(", "));
        return Err(gguf.invalid(KEY, reason).into());
    };
    let split = |regex: &&str| {
        let pattern = json!({ "Regex": regex });
        json!({"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": false})
    };
    let mut pre_tokenizers: Vec<serde_json::Value> = splits.iter().map(split).collect();
    let bytes =
        json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false});
    pre_tokenizers.push(bytes.clone());
    let numbers = vocabulary.numbers();
    // Vocabularies may lack bytes that no text of their training had. Nothing stands for these, and what is
    // on either side of one is not merged.
    let mut missing: Vec<char> = ByteLevel::alphabet().into_iter().collect();
    missing.retain(|byte| !numbers.contains_key(&*byte.to_string()));
    missing.sort_unstable();
    if !missing.is_empty() {
        let class: String = missing.iter().map(|byte| format!("\\x{{{:x}}}", u32::from(*byte))).collect();
        let pattern = json!({ "Regex": format!("[{class}]") });
        pre_tokenizers.push(json!({
            "type": "Split", "pattern": pattern, "behavior": "Removed", "invert": false,
        }));
    }
    const MERGES: &str = "tokenizer.ggml.merges";
    let merges: Array<'_> = gguf.require(MERGES)?;
    let merges = merges.iter().enumerate().map(|(number, merge)| {
        let two = if let Value::String(text) = merge { text.split_once(' ') } else { None };
        two.map(|(left, right)| [left, right]).ok_or_else(|| {
            let reason = format!("value {number} is not two tokens with a space between them");
            gguf.invalid(MERGES, reason)
        })
    });
    let merges: Vec<[&str; 2]> = merges.collect::<Result<_, _>>()?;
    Ok(Parts {
        normalizer: serde_json::Value::Null,
        pre_tokenizer: json!({"type": "Sequence", "pretokenizers": pre_tokenizers}),
        decoder: bytes,
        model: json!({
            // Llama 3 takes a word that is a token as it is (`ignore_merges` in its tokenizer.json).
            "type": "BPE", "vocab": numbers, "merges": merges, "ignore_merges": pre == "llama-bpe",
            "dropout": null, "unk_token": null, "continuing_subword_prefix": null, "end_of_word_suffix": null,
            "fuse_unk": false, "byte_fallback": false,
        }),
    })
}

/// SentencePiece's unigram model, as T5 has it.
fn unigram(gguf: &Gguf, vocabulary: &Vocabulary<'_>) -> Result<Parts, Error> {
    let scores: Vec<f32> = per_token(gguf, "tokenizer.ggml.scores", vocabulary.tokens.len())?;
    const CHARSMAP: &str = "tokenizer.ggml.precompiled_charsmap";
    let normalizer = match gguf.get::<Array<'_>>(CHARSMAP)? {
        None => serde_json::Value::Null,
        Some(map) => {
            let failed = |reason: String| Error::from(gguf.invalid(CHARSMAP, reason));
            let bytes = map.bytes().ok_or_else(|| failed("it is no array of bytes".to_owned()))?;
            let map = super::catch(|| Ok(Precompiled::from(bytes)?)).map_err(failed)?;
            serde_json::to_value(map).map_err(|error| failed(error.to_string()))?
        }
    };
    let vocab: Vec<serde_json::Value> =
        vocabulary.tokens.iter().zip(scores).map(|(token, score)| json!([token, f64::from(score)])).collect();
    let spaces =
        json!({"type": "Metaspace", "replacement": SPACE, "prepend_scheme": "always", "split": true});
    Ok(Parts {
        normalizer,
        pre_tokenizer: json!({"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, spaces]}),
        decoder: spaces,
        model: json!({
            "type": "Unigram", "unk_id": GgufTokens::read(gguf)?.unknown, "vocab": vocab, "byte_fallback": false,
        }),
    })
}

/// SentencePiece's BPE with bytes for what has no token, as Llama 2 has it.
///
/// Its merges are all divisions of a token into two others, the best score first (`generate_merges` in
/// transformers' src/transformers/convert_slow_tokenizer.py).
fn sentence_pieces(gguf: &Gguf, vocabulary: &Vocabulary<'_>) -> Result<Parts, Error> {
    let scores: Vec<f32> = per_token(gguf, "tokenizer.ggml.scores", vocabulary.tokens.len())?;
    let numbers = vocabulary.numbers();
    let is_piece =
        |number: usize| matches!(vocabulary.types[number], token_type::NORMAL | token_type::USER_DEFINED);
    let mut merges: Vec<(f32, usize, usize, usize)> = Vec::new();
    for (number, token) in vocabulary.tokens.iter().enumerate().filter(|(number, _)| is_piece(*number)) {
        for (at, _) in token.char_indices().skip(1) {
            let (left, right) = token.split_at(at);
            if let (Some(&left), Some(&right)) = (numbers.get(left), numbers.get(right)) {
                merges.push((scores[number], number, left, right));
            }
        }
    }
    merges.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| (a.1, a.2, a.3).cmp(&(b.1, b.2, b.3))));
    let merges: Vec<[&str; 2]> = merges
        .iter()
        .map(|&(_, _, left, right)| [vocabulary.tokens[left], vocabulary.tokens[right]])
        .collect();
    let to_spaces = json!({"type": "Replace", "pattern": {"String": " "}, "content": SPACE});
    let adds_space = gguf.get("tokenizer.ggml.add_space_prefix")?.unwrap_or(true);
    let mut normalizers = vec![to_spaces];
    let mut decoders = vec![
        json!({"type": "Replace", "pattern": {"String": SPACE}, "content": " "}),
        json!({"type": "ByteFallback"}),
        json!({"type": "Fuse"}),
    ];
    if adds_space {
        normalizers.insert(0, json!({"type": "Prepend", "prepend": SPACE}));
        decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    }
    let unknown = GgufTokens::read(gguf)?.unknown.map(|token| vocabulary.tokens[token as usize]);
    Ok(Parts {
        normalizer: json!({"type": "Sequence", "normalizers": normalizers}),
        pre_tokenizer: serde_json::Value::Null,
        decoder: json!({"type": "Sequence", "decoders": decoders}),
        model: json!({
            "type": "BPE", "vocab": numbers, "merges": merges, "unk_token": unknown, "fuse_unk": true,
            "byte_fallback": true, "dropout": null, "continuing_subword_prefix": null, "end_of_word_suffix": null,
            "ignore_merges": false,
        }),
    })
}
