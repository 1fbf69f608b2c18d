//! The tokenizer of a checkpoint, used as transformers uses it.

mod file;
mod gguf;
mod limits;
mod plain;
mod special;

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use calm_core::Token;
use calm_files::catch_panic;
use calm_gguf::Gguf;
use tokenizers::{AddedToken, Encoding};

use crate::files::is_gguf;
use crate::{Error, Kept, NetworkConfig};

pub(crate) use self::plain::ControlToken;
pub use self::special::SpecialTokens;
pub(crate) use self::special::TokenName;

/// Name of a tokenizer's file in a checkpoint.
const FILE: &str = "tokenizer.json";

/// The tokens that T5's tokenizer in transformers takes for special whether the file says so or not.
const SPECIAL: [&str; 3] = ["<pad>", "</s>", "<unk>"];

/// The `tokenizer.json` of a checkpoint, or what the metadata of a GGUF file say instead.
///
/// Its `padding` and `truncation` are ignored, as transformers does: they are what the last call before
/// saving asked for.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    /// The same without tokens that control, made when it is first needed.
    without_control: OnceLock<Result<Box<tokenizers::Tokenizer>, String>>,
    path: PathBuf,
    vocab_size: usize,
    /// How many tokens the template puts in front of a text.
    template_start: usize,
    /// What the template puts behind a text.
    template_end: Vec<Token>,
    /// What is put behind a text because the template puts nothing there.
    added_end: Option<Token>,
    /// Whether the file says how texts were to be padded or cut.
    pads_or_cuts: bool,
    kept: Kept,
}

impl Tokenizer {
    /// Reads the `tokenizer.json` of a T5 without its model. Texts end as its template says.
    ///
    /// # Errors
    /// Fails if the file is missing or is not a tokenizer.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let mut tokenizer = Self::plain(path)?;
        for name in SPECIAL {
            tokenizer.make_special(name)?;
        }
        Ok(tokenizer)
    }

    /// Reads a `tokenizer.json` as it is.
    fn plain(path: &Path) -> Result<Self, Error> {
        let text = file::read(path)?;
        Self::parsed(path, || text.parse())
    }

    /// Makes the tokenizer that the metadata of a GGUF file describe. What it puts before and behind a text
    /// is what these say.
    ///
    /// # Errors
    /// Fails if the file has no tokenizer, one that is not supported, or one that contradicts itself.
    pub fn of_gguf(gguf: &Gguf) -> Result<Self, Error> {
        let document = gguf::document(gguf)?;
        let mut tokenizer = Self::parsed(gguf.path(), || Ok(serde_json::from_value(document)?))?;
        if gguf.get("tokenizer.ggml.model")? != Some("t5") {
            tokenizer.kept = Kept::End { first: tokenizer.template_start };
        }
        Ok(tokenizer)
    }

    fn parsed(
        path: &Path,
        parse: impl FnOnce() -> tokenizers::Result<tokenizers::Tokenizer>,
    ) -> Result<Self, Error> {
        let failed = |reason| Error::Tokenizer { path: path.to_owned(), reason };
        let mut inner = catch(parse).map_err(failed)?;
        let pads_or_cuts = inner.get_padding().is_some() || inner.get_truncation().is_some();
        inner.with_padding(None);
        catch(|| inner.with_truncation(None).map(drop)).map_err(failed)?;
        let largest = inner.get_vocab(true).into_values().max();
        let vocab_size = largest.map_or(0, |token| token as usize + 1);
        let [template_start, template_end] = template(&inner).map_err(failed)?;
        let mut tokenizer = Tokenizer {
            inner,
            without_control: OnceLock::new(),
            path: path.to_owned(),
            vocab_size,
            template_start: template_start.len(),
            template_end,
            added_end: None,
            pads_or_cuts,
            kept: Kept::Beginning,
        };
        for token in tokenizer.template_end.clone() {
            if let Some(name) = tokenizer.name(token) {
                tokenizer.make_special(&name)?;
            }
        }
        Ok(tokenizer)
    }

    /// Reads the `tokenizer.json` of a checkpoint directory, if there is one, for the model beside it, or the
    /// tokenizer of a GGUF file.
    ///
    /// # Errors
    /// Fails if the file is not a tokenizer, or contradicts `config`.
    pub fn of_checkpoint(dir: &Path, config: &dyn NetworkConfig) -> Result<Option<Self>, Error> {
        if is_gguf(dir) {
            let gguf = Gguf::open(dir)?;
            let has_one = gguf.metadata("tokenizer.ggml.model").is_some();
            return has_one.then(|| Self::of_gguf(&gguf)).transpose();
        }
        let path = dir.join(FILE);
        if !path.is_file() {
            return Ok(None);
        }
        Ok(Some(config.load_tokenizer(&path)?))
    }

    /// The error of something that needs the tokenizer of a checkpoint directory that has none.
    pub fn missing(dir: &Path) -> Error {
        file::missing(dir)
    }

    /// Returns the tokens of a text and the token that ends it. Tokens that control, such as the one that
    /// ends a turn, are found where the text has their names.
    ///
    /// # Errors
    /// Fails if the tokenizer cannot represent the text.
    pub fn encode(&self, text: &str) -> Result<Vec<Token>, Error> {
        let encoding = catch(|| self.inner.encode_fast(text, true))
            .map_err(|reason| self.failed("encode a text", reason))?;
        let mut tokens = encoding.get_ids().to_vec();
        tokens.extend(self.added_end);
        Ok(tokens)
    }

    /// Returns the text of tokens, without the special ones.
    ///
    /// # Errors
    /// Fails if the tokenizer's decoder fails.
    pub fn decode(&self, tokens: &[Token]) -> Result<String, Error> {
        catch(|| self.inner.decode(tokens, true)).map_err(|reason| self.failed("decode tokens", reason))
    }

    /// Which part of a text that is too long the model wants to read.
    pub fn kept(&self) -> Kept {
        self.kept
    }

    /// The token that stands for what the tokenizer has no other token for, if it has one.
    pub fn unknown_token(&self) -> Option<Token> {
        // A model says it by number or by name, and some say it only in their file.
        let model = serde_json::to_value(self.inner.get_model()).ok()?;
        match model["unk_id"].as_u64() {
            Some(number) => Token::try_from(number).ok(),
            None => self.inner.token_to_id(model["unk_token"].as_str()?),
        }
    }

    /// Number from which on there are no tokens; a model's padded vocabulary may be larger.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// In what texts are tokenised otherwise than the file alone says, if in anything: part of the
    /// fingerprint of what is made with it.
    pub fn departures(&self) -> Option<String> {
        let departs = self.added_end.is_some() || self.pads_or_cuts;
        let end = self.added_end;
        departs.then(|| format!("added end {end:?}, no padding, no truncation"))
    }

    fn failed(&self, what: &str, reason: String) -> Error {
        self.error(format!("cannot {what}: {reason}"))
    }

    fn error(&self, reason: String) -> Error {
        Error::Tokenizer { path: self.path.clone(), reason }
    }

    fn name(&self, token: Token) -> Option<String> {
        self.inner.id_to_token(token)
    }

    fn is_special(&self, name: &str) -> bool {
        self.inner.get_added_vocabulary().is_special_token(name)
    }

    /// Has a token of the vocabulary left out of decoded texts.
    fn make_special(&mut self, name: &str) -> Result<(), Error> {
        if self.inner.token_to_id(name).is_none() || self.is_special(name) {
            return Ok(());
        }
        self.without_control = OnceLock::new();
        let token = AddedToken::from(name, true);
        let added = catch(|| self.inner.add_special_tokens([token]));
        added.map(drop).map_err(|reason| self.error(reason))
    }
}

/// Runs something of the crate `tokenizers`, which panics on some damaged files.
fn catch<T>(call: impl FnOnce() -> tokenizers::Result<T>) -> Result<T, String> {
    match catch_panic(call) {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(panic) => Err(format!("the tokenizer is damaged: {panic}")),
    }
}

/// The tokens in front of a text and those behind it, found by what the template makes of a token that no
/// vocabulary has.
fn template(tokenizer: &tokenizers::Tokenizer) -> Result<[Vec<Token>; 2], String> {
    const TEXT: Token = Token::MAX;
    let text = tokenizers::Token::new(TEXT, String::new(), (0, 0));
    let framed = catch(|| tokenizer.post_process(Encoding::from_tokens(vec![text], 0), None, true))?;
    let framed = framed.get_ids();
    match framed.iter().rposition(|&token| token == TEXT) {
        Some(place) => Ok([framed[..place].to_vec(), framed[place + 1..].to_vec()]),
        None => Err("its template leaves the text out".to_owned()),
    }
}
