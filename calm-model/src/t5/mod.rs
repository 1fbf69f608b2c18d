//! T5 v1.0 and v1.1: the encoder, the decoder layer by layer, and the head that all exits share.

mod decoding;
mod dropout;
mod layers;
mod position;
mod prompt;

use std::path::Path;

use calm_checkpoint::{DECODER_EMBEDDING, Direction, ENCODER_EMBEDDING, HEAD, SHARED, T5Config};
use calm_core::{EngineError, Prompt, Token};
use tch::{Device, Kind, Tensor};

pub use self::dropout::Dropout;
use self::layers::{DenseReluDense, EncDecAttention, SelfAttention};
use self::prompt::Encoded;
use crate::Error;
use crate::about::About;
use crate::decoder::aligned;
use crate::rms_norm::RmsNorm;
use crate::weights::{Scope, Weights};

/// A T5 encoder-decoder whose decoder may stop after any layer.
pub struct T5 {
    config: T5Config,
    pub(crate) about: About,
    encoder: Encoder,
    decoder: Decoder,
    head: Tensor,
    /// The rows of the head that exit heads end in: [tokens, d_model]
    exit_head: Tensor,
}

struct Encoder {
    /// [vocab_size, d_model]
    embed_tokens: Tensor,
    blocks: Vec<EncoderBlock>,
    relative_attention_bias: Tensor,
    final_layer_norm: RmsNorm,
}

struct EncoderBlock {
    self_attention: SelfAttention,
    self_attention_norm: RmsNorm,
    feed_forward: DenseReluDense,
    feed_forward_norm: RmsNorm,
}

struct Decoder {
    /// [vocab_size, d_model]
    embed_tokens: Tensor,
    blocks: Vec<DecoderBlock>,
    relative_attention_bias: Tensor,
    final_layer_norm: RmsNorm,
}

struct DecoderBlock {
    self_attention: SelfAttention,
    self_attention_norm: RmsNorm,
    cross_attention: EncDecAttention,
    cross_attention_norm: RmsNorm,
    feed_forward: DenseReluDense,
    feed_forward_norm: RmsNorm,
}

/// A batch for teacher forcing: token ids [batch, length], padded at the end.
pub struct TeacherForcing<'a> {
    /// Source tokens.
    pub sources: &'a Tensor,
    /// Number of tokens of each source, at least 1: `[batch]`
    pub source_lengths: &'a Tensor,
    /// The decoder's inputs: the target shifted right by the start token.
    pub decoder_inputs: &'a Tensor,
    /// It is applied everywhere T5 applies it, and to whole decoder layers.
    pub dropout: &'a Dropout,
}

impl T5 {
    /// Reads a Hugging Face checkpoint directory or a GGUF file and makes it ready to generate on `device` in
    /// f32. Tensors the model has no use for are listed by [`T5::unexpected`].
    ///
    /// # Errors
    /// A file is missing, invalid or truncated, a tensor is missing or has another shape than the
    /// configuration says, or the exit heads beside it are not its own.
    pub fn load(path: &Path, device: Device) -> Result<Self, Error> {
        let mut model = Self::load_backbone(path, device)?;
        model.exit_head = model.about.read_exit_heads(path, &model.head)?;
        Ok(model)
    }

    /// The same without exit heads, whatever lies there: what they are trained for.
    ///
    /// # Errors
    /// As [`load`](Self::load), but for the heads.
    pub fn load_backbone(path: &Path, device: Device) -> Result<Self, Error> {
        let config = T5Config::of_checkpoint(path)?;
        let weights = Weights::load(path, &config, device)?.map(|tensor| tensor.to_kind(Kind::Float));
        let mut model = tch::no_grad(|| T5::new(&config, &weights))?;
        model.head = model.about.of_checkpoint(path, &config, model.head)?;
        Ok(model)
    }

    /// Builds the network over given weights, sharing their storage where nothing is stacked, so that
    /// gradients reach them.
    ///
    /// # Errors
    /// A tensor is missing or has another shape than the configuration says.
    pub fn new(config: &T5Config, weights: &Weights) -> Result<Self, Error> {
        let root = weights.root();
        let table = [config.vocab_size, config.d_model];
        let shared = root.tensor(SHARED, &table)?;
        let table_of = |name| {
            let own = root.optional_tensor(name, &table)?;
            Ok::<_, Error>(own.unwrap_or_else(|| shared.shallow_clone()))
        };
        // The file decides whether the head is separate, never `tie_word_embeddings`, which transformers 5
        // always sets.
        let head = table_of(HEAD)?;
        let encoder = Encoder::new(&root.enter("encoder"), table_of(ENCODER_EMBEDDING)?, config)?;
        let decoder = Decoder::new(&root.enter("decoder"), table_of(DECODER_EMBEDDING)?, config)?;
        Ok(T5 {
            about: About::new(config.shape(), weights)?,
            config: config.clone(),
            encoder,
            decoder,
            exit_head: head.shallow_clone(),
            head,
        })
    }

    /// Another handle on the same weights, for another thread: tensors can be sent to a thread, not shared
    /// with one.
    pub fn share(&self) -> Self {
        T5 {
            config: self.config.clone(),
            about: self.about.clone(),
            encoder: self.encoder.share(),
            decoder: self.decoder.share(),
            head: self.head.shallow_clone(),
            exit_head: self.exit_head.shallow_clone(),
        }
    }

    pub(crate) fn read_sources<'a>(
        &'a self,
        sources: &[&[Token]],
    ) -> Result<Box<dyn Prompt + 'a>, EngineError> {
        Ok(Box::new(Encoded::new(self, sources)?))
    }

    /// `config.json`.
    pub fn config(&self) -> &T5Config {
        &self.config
    }

    /// Where the weights are.
    pub fn device(&self) -> Device {
        self.head.device()
    }

    /// SHA-256, in hexadecimal, of all that the outputs depend on: weight files, `config.json` and
    /// `tokenizer.json` where there is one. Empty for a model that was not loaded from files.
    pub fn fingerprint(&self) -> &str {
        &self.about.fingerprint
    }

    /// Tensors of the checkpoint that the model has no use for.
    pub fn unexpected(&self) -> &[String] {
        &self.about.unexpected
    }

    /// Residual states after every decoder layer with teacher forcing: `num_decoder_layers` of [batch,
    /// length, d_model]. A row that skips a layer has the state of the layer below.
    pub fn decoder_states(&self, batch: &TeacherForcing<'_>) -> Vec<Tensor> {
        let dropout = batch.dropout;
        let source_mask = self.padding_mask(batch.sources.size()[1], batch.source_lengths);
        let encoded = self.encode_tokens(batch.sources, &source_mask, dropout);
        let encoded = self.normed(&encoded, dropout);
        let source_mask = source_mask.narrow(-1, 0, batch.sources.size()[1]);
        let length = batch.decoder_inputs.size()[1];
        let table = &self.decoder.relative_attention_bias;
        let bias = position::square_bias(table, &self.config, Direction::Causal, length);
        let bias = bias.narrow(-1, 0, length);
        let mut x = dropout.apply(&embed(&self.decoder.embed_tokens, batch.decoder_inputs));
        let mut states = Vec::with_capacity(self.decoder.blocks.len());
        for (layer, block) in self.decoder.blocks.iter().enumerate() {
            let after = block.forward(&x, &bias, &encoded, &source_mask, dropout);
            x = dropout.skip(layer, &x, after);
            states.push(x.shallow_clone());
        }
        states
    }

    /// What the head multiplies: the final norm of a residual state, scaled where the head is tied to the
    /// embedding.
    pub fn head_input(&self, state: &Tensor) -> Tensor {
        self.head_input_by(self.head_norm(), state)
    }

    /// The same with other weights of the final norm, `[d_model]`, such as those that a gradient is wanted
    /// for.
    pub fn head_input_by(&self, norm: &Tensor, state: &Tensor) -> Tensor {
        let normed = self.decoder.final_layer_norm.forward_by(norm, state);
        let scale = self.config.head_scale();
        if scale == 1.0 { normed } else { normed * scale }
    }

    /// Weights of the final norm, shared by all exits: `[d_model]`
    pub fn head_norm(&self) -> &Tensor {
        self.decoder.final_layer_norm.weight()
    }

    /// The output head [vocab_size, d_model], shared by all exits.
    pub fn head(&self) -> &Tensor {
        &self.head
    }

    /// 0 for tokens and minus infinity for padding: lengths [batch] -> [batch, 1, 1, aligned length]; nobody
    /// reads behind the length. A source may hold the padding token itself, so that the mask goes by length.
    fn padding_mask(&self, length: i64, lengths: &Tensor) -> Tensor {
        let mask = Tensor::zeros([lengths.size()[0], length], (self.head.kind(), self.device()));
        let positions = Tensor::arange(length, (Kind::Int64, self.device()));
        let padding = positions.ge_tensor(&lengths.unsqueeze(1));
        let mask = mask.masked_fill(&padding, f64::NEG_INFINITY);
        mask.constant_pad_nd([0, aligned(length) - length]).unsqueeze(1).unsqueeze(1)
    }

    /// States before the final norm: tokens [batch, length], mask [batch, 1, 1, aligned length] ->
    /// [batch, length, d_model]
    fn encode_tokens(&self, tokens: &Tensor, mask: &Tensor, dropout: &Dropout) -> Tensor {
        let length = tokens.size()[1];
        let table = &self.encoder.relative_attention_bias;
        let bias = position::square_bias(table, &self.config, Direction::Bidirectional, length) + mask;
        let bias = bias.narrow(-1, 0, length);
        let mut x = dropout.apply(&embed(&self.encoder.embed_tokens, tokens));
        for block in &self.encoder.blocks {
            x = block.forward(&x, &bias, dropout);
        }
        x
    }

    /// The same through the final norm.
    fn normed(&self, encoded: &Tensor, dropout: &Dropout) -> Tensor {
        dropout.apply(&self.encoder.final_layer_norm.forward(encoded))
    }
}

impl Encoder {
    fn share(&self) -> Self {
        Encoder {
            embed_tokens: self.embed_tokens.shallow_clone(),
            blocks: self.blocks.iter().map(EncoderBlock::share).collect(),
            relative_attention_bias: self.relative_attention_bias.shallow_clone(),
            final_layer_norm: self.final_layer_norm.share(),
        }
    }

    fn new(scope: &Scope<'_>, embed_tokens: Tensor, config: &T5Config) -> Result<Self, Error> {
        let block = |i| {
            let scope = scope.enter("block").enter(i);
            let (attention, feed_forward) = (scope.enter("layer.0"), scope.enter("layer.1"));
            Ok(EncoderBlock {
                self_attention: SelfAttention::new(&attention.enter("SelfAttention"), config)?,
                self_attention_norm: layer_norm(&attention.enter("layer_norm"), config)?,
                feed_forward: DenseReluDense::new(&feed_forward.enter("DenseReluDense"), config)?,
                feed_forward_norm: layer_norm(&feed_forward.enter("layer_norm"), config)?,
            })
        };
        Ok(Encoder {
            embed_tokens,
            blocks: (0..config.num_layers).map(block).collect::<Result<_, Error>>()?,
            relative_attention_bias: relative_attention_bias(scope, config)?,
            final_layer_norm: layer_norm(&scope.enter("final_layer_norm"), config)?,
        })
    }
}

impl EncoderBlock {
    fn share(&self) -> Self {
        EncoderBlock {
            self_attention: self.self_attention.share(),
            self_attention_norm: self.self_attention_norm.share(),
            feed_forward: self.feed_forward.share(),
            feed_forward_norm: self.feed_forward_norm.share(),
        }
    }

    fn forward(&self, x: &Tensor, bias: &Tensor, dropout: &Dropout) -> Tensor {
        let h = self.self_attention.forward(&self.self_attention_norm.forward(x), bias, dropout);
        let x = dropout.add(x, &h);
        let h = self.feed_forward.forward(&self.feed_forward_norm.forward(&x), dropout);
        dropout.add(&x, &h)
    }
}

impl Decoder {
    fn share(&self) -> Self {
        Decoder {
            embed_tokens: self.embed_tokens.shallow_clone(),
            blocks: self.blocks.iter().map(DecoderBlock::share).collect(),
            relative_attention_bias: self.relative_attention_bias.shallow_clone(),
            final_layer_norm: self.final_layer_norm.share(),
        }
    }

    fn new(scope: &Scope<'_>, embed_tokens: Tensor, config: &T5Config) -> Result<Self, Error> {
        let block = |i| {
            let scope = scope.enter("block").enter(i);
            let [attention, cross, feed_forward] = [0, 1, 2].map(|layer| scope.enter("layer").enter(layer));
            Ok(DecoderBlock {
                self_attention: SelfAttention::new(&attention.enter("SelfAttention"), config)?,
                self_attention_norm: layer_norm(&attention.enter("layer_norm"), config)?,
                cross_attention: EncDecAttention::new(&cross.enter("EncDecAttention"), config)?,
                cross_attention_norm: layer_norm(&cross.enter("layer_norm"), config)?,
                feed_forward: DenseReluDense::new(&feed_forward.enter("DenseReluDense"), config)?,
                feed_forward_norm: layer_norm(&feed_forward.enter("layer_norm"), config)?,
            })
        };
        Ok(Decoder {
            embed_tokens,
            blocks: (0..config.decoder_layers()).map(block).collect::<Result<_, Error>>()?,
            relative_attention_bias: relative_attention_bias(scope, config)?,
            final_layer_norm: layer_norm(&scope.enter("final_layer_norm"), config)?,
        })
    }
}

impl DecoderBlock {
    fn share(&self) -> Self {
        DecoderBlock {
            self_attention: self.self_attention.share(),
            self_attention_norm: self.self_attention_norm.share(),
            cross_attention: self.cross_attention.share(),
            cross_attention_norm: self.cross_attention_norm.share(),
            feed_forward: self.feed_forward.share(),
            feed_forward_norm: self.feed_forward_norm.share(),
        }
    }

    fn forward(
        &self,
        x: &Tensor,
        bias: &Tensor,
        encoded: &Tensor,
        source_mask: &Tensor,
        dropout: &Dropout,
    ) -> Tensor {
        let h = self.self_attention.forward(&self.self_attention_norm.forward(x), bias, dropout);
        let x = dropout.add(x, &h);
        let normed = self.cross_attention_norm.forward(&x);
        let h = self.cross_attention.forward(&normed, encoded, source_mask, dropout);
        let x = dropout.add(&x, &h);
        let h = self.feed_forward.forward(&self.feed_forward_norm.forward(&x), dropout);
        dropout.add(&x, &h)
    }
}

/// Rows of a table [vocab_size, d_model] by tokens of any shape: [.., d_model]
fn embed(table: &Tensor, tokens: &Tensor) -> Tensor {
    Tensor::embedding(table, tokens, -1, false, false)
}

fn layer_norm(scope: &Scope<'_>, config: &T5Config) -> Result<RmsNorm, Error> {
    RmsNorm::new(scope, config.d_model, config.layer_norm_epsilon)
}

/// Only the first block of a stack has the table [buckets, heads]; all blocks use it.
fn relative_attention_bias(scope: &Scope<'_>, config: &T5Config) -> Result<Tensor, Error> {
    scope
        .enter("block.0.layer.0.SelfAttention.relative_attention_bias")
        .tensor("weight", &[config.relative_attention_num_buckets, config.num_heads])
}
