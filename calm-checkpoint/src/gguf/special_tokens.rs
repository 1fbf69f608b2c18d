use calm_core::Token;
use calm_gguf::{Array, Gguf, Value};

use crate::Error;

/// Control tokens after which nothing follows, whatever keys of the metadata say (`special_eog_ids` in
/// llama.cpp's src/llama-vocab.cpp): files name one token that ends, and chats end with others.
const ENDS: [&str; 12] = [
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "<|eom_id|>",
    "<EOT>",
    "_<EOT>",
    "<|end_of_text|>",
    "<end_of_utterance>",
];

/// The number that stands for control tokens in `tokenizer.ggml.token_type`.
pub(crate) const CONTROL: i64 = 3;

/// The tokens with a meaning of their own that a GGUF file names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GgufTokens {
    /// It begins texts.
    pub begin: Option<Token>,
    /// It ends texts.
    pub end: Option<Token>,
    /// All tokens that end an output, [`end`](Self::end) first.
    pub ends: Vec<Token>,
    /// It fills up batches.
    pub pad: Option<Token>,
    /// It stands for what there is no token for.
    pub unknown: Option<Token>,
    /// Whether [`begin`](Self::begin) is put before a text.
    pub adds_begin: bool,
    /// Whether [`end`](Self::end) is put behind a text.
    pub adds_end: bool,
}

impl GgufTokens {
    /// Reads them, with llama.cpp's defaults for what the file does not say.
    ///
    /// # Errors
    /// A key's value is not what it should be, or names no token of the vocabulary.
    pub fn read(gguf: &Gguf) -> Result<Self, Error> {
        let defaults = Defaults::of(gguf)?;
        // A file without a tokenizer may still name tokens.
        let names: Option<Array<'_>> = gguf.get("tokenizer.ggml.tokens")?;
        let count = names.map_or(i64::from(Token::MAX), |names| names.len() as i64);
        let token = |name: &str, default: Option<Token>| -> Result<Option<Token>, Error> {
            let key = format!("tokenizer.ggml.{name}_token_id");
            match gguf.get::<i64>(&key)? {
                // How files say that there is none: -1, also as u32.
                Some(-1 | 0xffff_ffff) => Ok(None),
                Some(id) if (0..count).contains(&id) => Ok(Some(id as Token)),
                Some(id) => Err(gguf.invalid(&key, format!("token {id} of a vocabulary of {count}")).into()),
                None => Ok(default.filter(|&token| i64::from(token) < count)),
            }
        };
        let (begin, end) = (token("bos", defaults.begin)?, token("eos", defaults.end)?);
        let types: Option<Array<'_>> = gguf.get("tokenizer.ggml.token_type")?;
        let mut types = types.into_iter().flat_map(|types| types.iter());
        let mut ends: Vec<Token> = end.into_iter().collect();
        ends.extend([token("eot", None)?, token("eom", None)?].into_iter().flatten());
        for (id, name) in names.into_iter().flat_map(|names| names.iter()).enumerate() {
            let is_control = types.next().is_none_or(|value| value.integer() == Some(CONTROL.into()));
            if is_control && matches!(name, Value::String(name) if ENDS.contains(&name)) {
                ends.push(id as Token);
            }
        }
        let mut seen = Vec::new();
        ends.retain(|&token| {
            !seen.contains(&token) && {
                seen.push(token);
                true
            }
        });
        let adds = |name: &str, default: bool| -> Result<bool, Error> {
            Ok(gguf.get(&format!("tokenizer.ggml.add_{name}_token"))?.unwrap_or(default))
        };
        Ok(GgufTokens {
            begin,
            end,
            ends,
            pad: token("padding", defaults.pad)?,
            unknown: token("unknown", defaults.unknown)?,
            adds_begin: adds("bos", defaults.adds_begin)? && begin.is_some(),
            adds_end: adds("eos", defaults.adds_end)? && end.is_some(),
        })
    }
}

/// What holds where a file does not say it (`llama_vocab::impl::load` in llama.cpp's src/llama-vocab.cpp).
#[derive(Default)]
struct Defaults {
    begin: Option<Token>,
    end: Option<Token>,
    pad: Option<Token>,
    unknown: Option<Token>,
    adds_begin: bool,
    adds_end: bool,
}

impl Defaults {
    fn of(gguf: &Gguf) -> Result<Self, Error> {
        Ok(match gguf.get::<&str>("tokenizer.ggml.model")? {
            Some("llama") => Defaults {
                begin: Some(1),
                end: Some(2),
                unknown: Some(0),
                adds_begin: true,
                ..Defaults::default()
            },
            Some("t5") => Defaults {
                end: Some(1),
                pad: Some(0),
                unknown: Some(2),
                adds_end: true,
                ..Defaults::default()
            },
            _ => {
                let pre: Option<&str> = gguf.get("tokenizer.ggml.pre")?;
                Defaults { adds_begin: pre == Some("llama-bpe"), ..Defaults::default() }
            }
        })
    }
}
