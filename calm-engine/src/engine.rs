//! The engine that was asked for, with a checkpoint and its tokenizer.

use std::path::Path;
use std::time::SystemTime;

use anyhow::bail;
use calm_checkpoint::{
    CacheType, ChatOptions, ChatTemplate, EngineKind, Kept, LoadOptions, Message, Model, Tokenizer,
    WeightType, cut_source, load_config,
};
use calm_core::Token;

use crate::models::loader;

/// Texts to tokens and back.
pub trait TextCodec: Send + Sync {
    /// Tokens of a source, with whatever ends one.
    ///
    /// # Errors
    /// The text has no tokens.
    fn encode(&self, text: &str) -> anyhow::Result<Vec<Token>>;

    /// Text of an output, without special tokens.
    ///
    /// # Errors
    /// The tokens have no text.
    fn decode(&self, tokens: &[Token]) -> anyhow::Result<String>;

    /// Tokens of a conversation, by the model's template. What a message says is text, whatever it says.
    ///
    /// # Errors
    /// The model has no template for conversations, or none for this one.
    fn encode_chat(&self, _messages: &[Message], _options: ChatOptions) -> anyhow::Result<Vec<Token>> {
        bail!("the model has no chat template, which messages need")
    }

    /// Which part of a source that is too long the model wants to read.
    fn kept(&self) -> Kept {
        Kept::Beginning
    }
}

impl TextCodec for Tokenizer {
    fn encode(&self, text: &str) -> anyhow::Result<Vec<Token>> {
        Ok(Tokenizer::encode(self, text)?)
    }

    fn decode(&self, tokens: &[Token]) -> anyhow::Result<String> {
        Ok(Tokenizer::decode(self, tokens)?)
    }

    fn kept(&self) -> Kept {
        Tokenizer::kept(self)
    }
}

/// The tokenizer of a checkpoint, with its template for conversations.
struct ChatCodec {
    tokenizer: Tokenizer,
    /// Missing where the checkpoint has none. One that cannot be read is an error of conversations alone.
    template: Result<Option<ChatTemplate>, String>,
}

impl TextCodec for ChatCodec {
    fn encode(&self, text: &str) -> anyhow::Result<Vec<Token>> {
        TextCodec::encode(&self.tokenizer, text)
    }

    fn decode(&self, tokens: &[Token]) -> anyhow::Result<String> {
        TextCodec::decode(&self.tokenizer, tokens)
    }

    fn encode_chat(&self, messages: &[Message], options: ChatOptions) -> anyhow::Result<Vec<Token>> {
        match &self.template {
            Ok(Some(template)) => Ok(self.tokenizer.encode_chat(template, messages, options)?),
            Ok(None) => TextCodec::encode_chat(&self.tokenizer, messages, options),
            Err(error) => bail!("{error}"),
        }
    }

    fn kept(&self) -> Kept {
        self.tokenizer.kept()
    }
}

/// What decodes: handles on one model, and its tokenizer.
pub struct Engine {
    /// One for each worker, at least one.
    pub models: Vec<Box<dyn Model>>,
    /// Missing where a checkpoint has no tokenizer: it takes and gives tokens alone.
    pub codec: Option<Box<dyn TextCodec>>,
    /// Threads that share the operations of each handle.
    pub threads_per_worker: usize,
}

/// Which engine, and how it computes.
#[derive(Debug, Clone, Default)]
pub struct EngineOptions {
    /// None takes libtorch where there is a CUDA device or one is asked for, and the CPU engine elsewhere.
    pub kind: Option<EngineKind>,
    /// `cpu`, `cuda` or `cuda:N`; none takes the first CUDA device if there is one, else the CPU.
    pub device: Option<String>,
    /// How the CPU engine holds weights; none takes the checkpoint's own type.
    pub weight_type: Option<WeightType>,
    /// How the CPU engine keeps keys and values.
    pub cache_type: CacheType,
    /// Workers that decode side by side; one on CUDA. At least one.
    pub workers: usize,
    /// Threads that share each operation of a worker, where the engine can share it. At least one.
    pub threads_per_worker: usize,
    /// Leaves out the exit heads that lie beside the checkpoint.
    pub without_exit_heads: bool,
}

impl EngineOptions {
    /// Divides `threads` among as many batches as are decoded side by side; what is left makes each of them
    /// faster.
    pub fn divide(mut self, threads: usize, batches: usize) -> Self {
        self.workers = threads.min(batches).max(1);
        self.threads_per_worker = (threads / self.workers).max(1);
        self
    }
}

impl Engine {
    /// As many handles on a model as `workers` (0 counts as 1), each with so many threads.
    pub fn new(
        model: Box<dyn Model>,
        workers: usize,
        threads: usize,
        codec: Option<Box<dyn TextCodec>>,
    ) -> Self {
        let workers = if model.decodes_side_by_side() { workers } else { 1 };
        let mut models: Vec<_> = (1..workers).map(|_| model.share(threads)).collect();
        models.push(model);
        Self { models, codec, threads_per_worker: threads }
    }

    /// Loads a checkpoint directory.
    ///
    /// # Errors
    /// There is no such engine or device in this program or machine, no engine for this type of model, or the
    /// checkpoint or its tokenizer cannot be read.
    pub fn load(directory: &Path, options: &EngineOptions) -> anyhow::Result<Self> {
        // First whether there is an engine for it at all.
        loader(directory, choose(options)?)?;
        Self::with_codec(directory, options, load_codec(directory)?)
    }

    /// Like [`load`](Self::load), with a tokenizer that is loaded already.
    ///
    /// # Errors
    /// As [`load`](Self::load), but for the tokenizer.
    pub fn with_codec(
        directory: &Path,
        options: &EngineOptions,
        codec: Option<Box<dyn TextCodec>>,
    ) -> anyhow::Result<Self> {
        let kind = choose(options)?;
        let threads = options.threads_per_worker.max(1);
        let EngineOptions { device, weight_type, cache_type, without_exit_heads, .. } = options.clone();
        let load_options = LoadOptions { device, weight_type, cache_type, threads, without_exit_heads };
        let model = (loader(directory, kind)?.load)(directory, &load_options)?;
        Ok(Self::new(model, options.workers, threads, codec))
    }

    /// The model, by one of its handles.
    pub fn model(&self) -> &dyn Model {
        &*self.models[0]
    }

    /// Which part of a source that is too long the model wants to read.
    pub fn kept(&self) -> Kept {
        match &self.codec {
            Some(codec) => codec.kept(),
            None if self.model().is_decoder_only() => Kept::End { first: 0 },
            None => Kept::Beginning,
        }
    }

    /// The tokenizer, which whatever reads texts needs.
    ///
    /// # Errors
    /// The checkpoint has none.
    pub fn text_codec(&self) -> anyhow::Result<&dyn TextCodec> {
        Ok(self.codec.as_deref().ok_or_else(|| missing_codec(self.model()))?)
    }
}

/// How a source becomes tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SourceForm {
    /// Whether it is what a user says, around which the model's template for conversations is put.
    pub chat: bool,
    /// Longest source in tokens, at least 1; none is cut if there is nothing.
    pub limit: Option<usize>,
}

/// Tokens of a source.
///
/// # Errors
/// The text has no tokens, or is to be in a template that the model does not have.
pub fn encode_source(codec: &dyn TextCodec, text: &str, form: SourceForm) -> anyhow::Result<Vec<Token>> {
    let mut tokens = match form.chat {
        true => {
            let message = Message { role: "user".to_owned(), content: text.to_owned() };
            let options = ChatOptions { add_generation_prompt: true, now: SystemTime::now() };
            codec.encode_chat(&[message], options)?
        }
        false => codec.encode(text)?,
    };
    if let Some(limit) = form.limit {
        cut_source(&mut tokens, limit, codec.kept());
    }
    Ok(tokens)
}

/// The tokenizer of a checkpoint, if it has one, with its template for conversations.
///
/// # Errors
/// It has a tokenizer that cannot be read, or that is not of the model beside it.
pub fn load_codec(directory: &Path) -> anyhow::Result<Option<Box<dyn TextCodec>>> {
    let config = load_config(directory)?;
    let tokenizer = Tokenizer::of_checkpoint(directory, &*config)?;
    let template = || ChatTemplate::of_checkpoint(directory).map_err(|error| error.to_string());
    let codec = |tokenizer| Box::new(ChatCodec { tokenizer, template: template() }) as Box<dyn TextCodec>;
    Ok(tokenizer.map(codec))
}

/// The error of something that needs the tokenizer of a model that has none.
pub fn missing_codec(model: &dyn Model) -> calm_checkpoint::Error {
    Tokenizer::missing(model.folder().unwrap_or(Path::new("the model")))
}

fn choose(options: &EngineOptions) -> anyhow::Result<EngineKind> {
    let asked_for_cuda = options.device.as_deref().is_some_and(|device| device != "cpu");
    Ok(match options.kind {
        Some(EngineKind::Cpu) if asked_for_cuda => {
            bail!("the CPU engine has no device {}", options.device.as_deref().unwrap_or_default())
        }
        Some(kind) => kind,
        None if asked_for_cuda || options.device.is_none() && cuda_is_available() => EngineKind::Libtorch,
        None => EngineKind::Cpu,
    })
}

#[cfg(feature = "libtorch")]
fn cuda_is_available() -> bool {
    calm_model::device::init(None).is_ok_and(|device| device.is_cuda())
}

#[cfg(not(feature = "libtorch"))]
fn cuda_is_available() -> bool {
    false
}
