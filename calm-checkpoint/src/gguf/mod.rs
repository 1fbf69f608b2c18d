//! Checkpoints that are one GGUF file, in the terms of Hugging Face's checkpoints.

mod llama;
mod names;
mod special_tokens;
mod t5;

use calm_gguf::Gguf;

pub use self::names::{GgufNames, halves_of_pairs};
pub(crate) use self::special_tokens::CONTROL;
pub use self::special_tokens::GgufTokens;
use crate::{Error, LlamaConfig, NetworkConfig, T5Config};

/// The key that says what network a file has.
const ARCHITECTURE: &str = "general.architecture";
/// The embedding: its rows are the vocabulary.
const TOKEN_EMBD: &str = "token_embd.weight";
/// The head of a network that does not take the embedding.
const OUTPUT: &str = "output.weight";

/// The networks that GGUF files may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Architecture {
    T5,
    Llama,
}

calm_names::names!(Architecture, "architecture", { T5 => "t5", Llama => "llama" });

impl Architecture {
    fn of(gguf: &Gguf) -> Result<Self, Error> {
        let found: &str = gguf.require(ARCHITECTURE)?;
        if let Some(parts) = gguf.get::<u64>("split.count")?.filter(|parts| *parts > 1) {
            let reason = format!("the model is in {parts} files: join them with llama-gguf-split --merge");
            return Err(gguf.invalid("split.count", reason).into());
        }
        Ok(found.parse().map_err(|unknown: calm_names::UnknownName| {
            gguf.invalid(ARCHITECTURE, format!("a network that is not implemented: {unknown}"))
        })?)
    }
}

/// The configuration of the network in a GGUF file, whatever network it is.
///
/// # Errors
/// There is no such network, or as [`T5Config::of_gguf`] and [`LlamaConfig::of_gguf`] do.
pub fn gguf_config(gguf: &Gguf) -> Result<Box<dyn NetworkConfig>, Error> {
    Ok(match Architecture::of(gguf)? {
        Architecture::T5 => Box::new(T5Config::of_gguf(gguf)?),
        Architecture::Llama => Box::new(LlamaConfig::of_gguf(gguf)?),
    })
}

/// The keys of a network, which begin with its architecture.
struct Keys<'a> {
    gguf: &'a Gguf,
    architecture: Architecture,
}

impl<'a> Keys<'a> {
    /// The keys of a file, which has to have this network.
    fn of(gguf: &'a Gguf, architecture: Architecture) -> Result<Self, Error> {
        let found = Architecture::of(gguf)?;
        if found == architecture {
            return Ok(Keys { gguf, architecture });
        }
        Err(gguf.invalid(ARCHITECTURE, format!("a network `{found}`, and not `{architecture}`")).into())
    }

    fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.architecture)
    }

    fn get<T: calm_gguf::FromValue<'a>>(&self, name: &str) -> Result<Option<T>, Error> {
        Ok(self.gguf.get(&self.key(name))?)
    }

    fn require<T: calm_gguf::FromValue<'a>>(&self, name: &str) -> Result<T, Error> {
        Ok(self.gguf.require(&self.key(name))?)
    }

    fn invalid(&self, name: &str, reason: String) -> Error {
        self.gguf.invalid(&self.key(name), reason).into()
    }

    /// Number of rows of the embedding.
    fn vocab_size(&self) -> Result<i64, Error> {
        match self.gguf.tensor(TOKEN_EMBD).and_then(|tensor| tensor.shape.first()) {
            Some(&rows) => Ok(rows as i64),
            None => Err(self.config_error(format!("there is no tensor {TOKEN_EMBD}"))),
        }
    }

    fn config_error(&self, reason: String) -> Error {
        Error::Config { path: self.gguf.path().to_owned(), reason }
    }
}

/// The number that was meant by one that files keep in 32 bits: the shortest decimal number that is read as
/// it.
fn decimal(number: f32) -> f64 {
    number.to_string().parse().unwrap_or(f64::from(number))
}
