//! T5 v1.0 and v1.1: packing a checkpoint, and the encoder. The parts are named after the checkpoint's tensors.

use std::path::Path;
use std::sync::Arc;

use calm_checkpoint::{
    CLASSIFIER_BIAS, CLASSIFIER_WEIGHT, Direction, FeedForward, T5Config, Tokenizer, bucket, check_sources,
    fingerprint,
};
use calm_core::{Backbone, BackboneShape, ExitClassifier, Token, all_cores};

use crate::Error;
use crate::attention::{Bias, Heads, KeysValues, Query, attend};
use crate::elementwise::RmsNorm;
use crate::head::Head;
use crate::linear::{Linear, Output, Processor, WeightType};
use crate::session::Session;
use crate::simd::InstructionSet;
use crate::team::Team;
use crate::weights::{Stored, Weights};

/// A T5 encoder-decoder whose decoder may stop after any layer.
pub struct T5 {
    pub(crate) network: Arc<Network>,
    pub(crate) processor: Processor,
}

/// How a [`T5`] computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// None takes bf16 for a checkpoint that is stored in bf16, which changes nothing, and f32 for others.
    pub weight_type: Option<WeightType>,
    /// Threads that share each operation.
    pub threads: usize,
}

impl Default for Options {
    fn default() -> Self {
        Options { weight_type: None, threads: all_cores() }
    }
}

/// What all handles on a model share.
pub(crate) struct Network {
    pub(crate) shape: BackboneShape,
    pub(crate) heads: Heads,
    /// The embedding of both stacks: [vocab_size, d_model]
    shared: Stored,
    encoder: Encoder,
    pub(crate) decoder: Decoder,
    classifier: Option<ExitClassifier>,
    weight_type: WeightType,
    fingerprint: String,
    unexpected: Vec<String>,
    config: T5Config,
}

struct Encoder {
    blocks: Vec<EncoderBlock>,
    /// [buckets, heads]
    relative_attention_bias: Stored,
    final_layer_norm: RmsNorm,
}

struct EncoderBlock {
    self_attention: SelfAttention,
    feed_forward: DenseReluDense,
}

pub(crate) struct Decoder {
    pub(crate) blocks: Vec<DecoderBlock>,
    relative_attention_bias: Stored,
    /// With the final norm.
    pub(crate) head: Head,
}

pub(crate) struct DecoderBlock {
    pub(crate) self_attention: SelfAttention,
    pub(crate) cross_attention: EncDecAttention,
    pub(crate) feed_forward: DenseReluDense,
}

pub(crate) struct SelfAttention {
    pub(crate) norm: RmsNorm,
    pub(crate) q: Linear,
    /// Keys and values one below the other: [2 * inner, d_model]
    pub(crate) kv: Linear,
    pub(crate) o: Linear,
}

pub(crate) struct EncDecAttention {
    pub(crate) norm: RmsNorm,
    pub(crate) q: Linear,
    /// Of the encoder's output: [2 * inner, d_model]
    pub(crate) kv: Linear,
    pub(crate) o: Linear,
}

pub(crate) struct DenseReluDense {
    norm: RmsNorm,
    /// `wi`, or `wi_0` and `wi_1`.
    wi: Linear,
    wo: Linear,
    activation: FeedForward,
    d_ff: usize,
}

/// Encoder output of each source of a batch.
#[derive(Clone)]
pub struct Encoded {
    /// Each [source length, d_model].
    pub(crate) states: Vec<Arc<[f32]>>,
}

impl T5 {
    /// Reads a Hugging Face checkpoint directory and packs it.
    ///
    /// # Errors
    /// A file is missing, invalid or truncated, or a tensor is missing or has another shape than `config.json` says.
    pub fn load(dir: &Path, options: &Options) -> Result<Self, Error> {
        let config = T5Config::load(&dir.join("config.json"))?;
        let tokenizer = dir.join("tokenizer.json");
        // A vocabulary padded to a round size has logits that stand for no token and must never be emitted.
        let tokens = if tokenizer.is_file() { Tokenizer::load(&tokenizer)?.vocab_size() } else { usize::MAX };
        // Before the weights are mapped, so that the files are not in memory twice.
        let fingerprint = fingerprint(dir)?;
        let mut network = Network::new(&config, &Weights::load(dir)?, options.weight_type, tokens)?;
        network.fingerprint = fingerprint;
        Ok(Self::of(network, options.threads))
    }

    /// Packs weights that are in memory.
    ///
    /// # Errors
    /// A tensor is missing or has another shape than the configuration says.
    pub fn new(config: &T5Config, weights: &Weights, options: &Options) -> Result<Self, Error> {
        Ok(Self::of(Network::new(config, weights, options.weight_type, usize::MAX)?, options.threads))
    }

    fn of(network: Network, threads: usize) -> Self {
        let set = InstructionSet::available()[0];
        T5 { network: Arc::new(network), processor: Processor { team: Team::new(threads), set } }
    }

    /// Another handle on the same weights with threads of its own, for decoding in parallel.
    pub fn share(&self, threads: usize) -> Self {
        let processor = Processor { team: Team::new(threads), set: self.processor.set };
        T5 { network: Arc::clone(&self.network), processor }
    }

    /// `config.json`.
    pub fn config(&self) -> &T5Config {
        &self.network.config
    }

    /// How the weights lie in memory.
    pub fn weight_type(&self) -> WeightType {
        self.network.weight_type
    }

    /// SHA-256, in hexadecimal, of all that the outputs depend on, as `calm_checkpoint::fingerprint`. Empty for a model that was not
    /// loaded from files.
    pub fn fingerprint(&self) -> &str {
        &self.network.fingerprint
    }

    /// Tensors of the checkpoint that the model has no use for.
    pub fn unexpected(&self) -> &[String] {
        &self.network.unexpected
    }

    /// Bytes of weights that a token reads in one decoder layer: all but the projections of the encoder's output.
    pub fn layer_bytes(&self) -> usize {
        let DecoderBlock { self_attention, cross_attention, feed_forward } = &self.network.decoder.blocks[0];
        let attention = [
            &self_attention.q,
            &self_attention.kv,
            &self_attention.o,
            &cross_attention.q,
            &cross_attention.o,
        ];
        attention.into_iter().chain([&feed_forward.wi, &feed_forward.wo]).map(Linear::bytes).sum()
    }

    /// Bytes of weights that a prediction reads.
    pub fn head_bytes(&self) -> usize {
        self.network.decoder.head.bytes()
    }
}

impl Backbone for T5 {
    type Error = Error;
    type Encoded = Encoded;
    type Session<'a> = Session<'a>;

    fn shape(&self) -> &BackboneShape {
        &self.network.shape
    }

    fn exit_classifier(&self) -> Option<&ExitClassifier> {
        self.network.classifier.as_ref()
    }

    fn encode(&self, sources: &[&[Token]]) -> Result<Encoded, Error> {
        check_sources(sources, self.network.shared.rows())?;
        // Each by itself: there is no padding to compute, and the others of a batch cannot change a result.
        let states = sources.iter().map(|source| self.network.encode(&self.processor, source).into());
        Ok(Encoded { states: states.collect() })
    }

    fn start<'a>(&'a self, encoded: &Encoded, _max_tokens: usize) -> Result<Session<'a>, Error> {
        Ok(Session::new(self, encoded))
    }
}

impl Network {
    fn new(
        config: &T5Config,
        weights: &Weights,
        weight_type: Option<WeightType>,
        tokens: usize,
    ) -> Result<Self, Error> {
        let d_model = config.d_model;
        let table = [config.vocab_size, d_model];
        let shared = weights.tensor("shared.weight", &table)?;
        let weight_type =
            weight_type.unwrap_or(if shared.is_bf16() { WeightType::Bf16 } else { WeightType::F32 });
        let build = Builder { config, weights, weight_type };
        // The file decides whether the head is separate, never `tie_word_embeddings`, which transformers 5 always sets.
        let head = weights.optional_tensor("lm_head.weight", &table)?.unwrap_or_else(|| shared.clone());
        let classifier = match (
            weights.optional_tensor(CLASSIFIER_WEIGHT, &[d_model])?,
            weights.optional_tensor(CLASSIFIER_BIAS, &[1])?,
        ) {
            (Some(weight), Some(bias)) => {
                Some(ExitClassifier { weight: weight.to_vec(), bias: bias.to_vec()[0] })
            }
            _ => None,
        };
        let head = head.first_rows(tokens);
        let shape = BackboneShape { vocab_size: head.rows(), ..config.shape() };
        let mut norm = build.norm("decoder.final_layer_norm")?;
        norm.scale = config.head_scale() as f32;
        let network = Network {
            heads: Heads { count: config.num_heads as usize, d_kv: config.d_kv as usize },
            encoder: Encoder {
                blocks: (0..config.num_layers).map(|i| build.encoder_block(i)).collect::<Result<_, _>>()?,
                relative_attention_bias: build.relative_attention_bias("encoder")?,
                final_layer_norm: build.norm("encoder.final_layer_norm")?,
            },
            decoder: Decoder {
                blocks: (0..config.decoder_layers())
                    .map(|i| build.decoder_block(i))
                    .collect::<Result<_, _>>()?,
                relative_attention_bias: build.relative_attention_bias("decoder")?,
                head: Head::new(norm, head, weight_type),
            },
            shape,
            shared,
            classifier,
            weight_type,
            fingerprint: String::new(),
            unexpected: weights.unexpected(),
            config: config.clone(),
        };
        weights.release();
        Ok(network)
    }

    /// Rows of the embedding: [tokens, d_model]
    pub(crate) fn embed(&self, tokens: &[Token], to: &mut Vec<f32>) {
        let width = self.shape.d_model;
        to.resize(tokens.len() * width, 0.0);
        for (&token, to) in tokens.iter().zip(to.chunks_exact_mut(width)) {
            self.shared.read_row(token as usize, to);
        }
    }

    /// Bias of the decoder's keys by distance, farthest first: [heads, width]. The keys of a query at position t (positions 0..=t)
    /// are its last t + 1 columns.
    pub(crate) fn causal_bias(&self, width: usize) -> Vec<f32> {
        let distances = (0..width as i64).rev().map(|distance| -distance);
        self.bias(&self.decoder.relative_attention_bias, Direction::Causal, distances)
    }

    /// [heads, distances]
    fn bias(&self, table: &Stored, direction: Direction, distances: impl Iterator<Item = i64>) -> Vec<f32> {
        let (table, heads) = (table.to_vec(), self.heads.count);
        let buckets: Vec<usize> =
            distances.map(|distance| bucket(&self.config, direction, distance) as usize).collect();
        (0..heads)
            .flat_map(|head| buckets.iter().map(|bucket| table[bucket * heads + head]).collect::<Vec<_>>())
            .collect()
    }

    /// States of one source: [length, d_model]
    fn encode(&self, processor: &Processor, source: &[Token]) -> Vec<f32> {
        let (length, heads) = (source.len(), self.heads);
        let inner = heads.count * heads.d_kv;
        let last = length as i64 - 1;
        let bias = self.bias(&self.encoder.relative_attention_bias, Direction::Bidirectional, -last..=last);
        let mut x = Vec::new();
        self.embed(source, &mut x);
        let (mut q, mut kv) = (vec![0.0; length * inner], vec![0.0; length * 2 * inner]);
        let mut context = vec![0.0; length * inner];
        let mut cache = KeysValues::new(heads, length);
        let mut hidden = Vec::new();
        for block in &self.encoder.blocks {
            let attention = &block.self_attention;
            attention.q.run(processor, Some(&attention.norm), &x, Output::Store(&mut q));
            attention.kv.run(processor, Some(&attention.norm), &x, Output::Store(&mut kv));
            for (position, kv) in kv.chunks_exact(2 * inner).enumerate() {
                cache.write(heads, position, kv);
            }
            let queries: Vec<Query<'_>> = q
                .chunks_exact(inner)
                .enumerate()
                .map(|(position, q)| {
                    // Distances from the first key's, which is `position` before the query.
                    let bias = Bias { table: &bias, width: 2 * length - 1, start: length - 1 - position };
                    Query { q, cache: &cache, length, bias: Some(bias) }
                })
                .collect();
            attend(processor, heads, &queries, &mut context);
            attention.o.run(processor, None, &context, Output::Add(&mut x));
            block.feed_forward.run(processor, &mut x, &mut hidden);
        }
        for x in x.chunks_exact_mut(self.shape.d_model) {
            let normed = x.to_vec();
            self.encoder.final_layer_norm.apply(&normed, x);
        }
        x
    }
}

impl DenseReluDense {
    /// Adds the layer's result to x [rows, d_model]; `hidden` is for what is between.
    pub(crate) fn run(&self, processor: &Processor, x: &mut [f32], hidden: &mut Vec<f32>) {
        hidden.resize(x.len() / self.norm.weight.len() * self.d_ff, 0.0);
        self.wi.run(processor, Some(&self.norm), x, Output::Activate(self.activation, hidden));
        self.wo.run(processor, None, hidden, Output::Add(x));
    }
}

/// Finds the tensors of a network and packs them.
struct Builder<'a> {
    config: &'a T5Config,
    weights: &'a Weights,
    weight_type: WeightType,
}

impl Builder<'_> {
    fn encoder_block(&self, block: i64) -> Result<EncoderBlock, Error> {
        let path = format!("encoder.block.{block}.layer");
        let block = Ok(EncoderBlock {
            self_attention: self.self_attention(&path)?,
            feed_forward: self.feed_forward(&format!("{path}.1"))?,
        });
        self.weights.release();
        block
    }

    fn decoder_block(&self, block: i64) -> Result<DecoderBlock, Error> {
        let path = format!("decoder.block.{block}.layer");
        let cross = format!("{path}.1.EncDecAttention");
        let block = Ok(DecoderBlock {
            self_attention: self.self_attention(&path)?,
            cross_attention: EncDecAttention {
                norm: self.norm(&format!("{path}.1.layer_norm"))?,
                q: self.linear(&[self.projection(&cross, "q")?]),
                kv: self.linear(&[self.projection(&cross, "k")?, self.projection(&cross, "v")?]),
                o: self.linear(&[self.output(&cross)?]),
            },
            feed_forward: self.feed_forward(&format!("{path}.2"))?,
        });
        self.weights.release();
        block
    }

    fn self_attention(&self, path: &str) -> Result<SelfAttention, Error> {
        let attention = format!("{path}.0.SelfAttention");
        Ok(SelfAttention {
            norm: self.norm(&format!("{path}.0.layer_norm"))?,
            q: self.linear(&[self.projection(&attention, "q")?]),
            kv: self.linear(&[self.projection(&attention, "k")?, self.projection(&attention, "v")?]),
            o: self.linear(&[self.output(&attention)?]),
        })
    }

    fn feed_forward(&self, path: &str) -> Result<DenseReluDense, Error> {
        let (d_ff, d_model, activation) =
            (self.config.d_ff, self.config.d_model, self.config.feed_forward_proj);
        let input = |name: &str| {
            self.weights.tensor(&format!("{path}.DenseReluDense.{name}.weight"), &[d_ff, d_model])
        };
        let wi = if activation.is_gated() {
            Linear::gated(&input("wi_0")?, &input("wi_1")?, self.weight_type)
        } else {
            self.linear(&[input("wi")?])
        };
        let wo = self.weights.tensor(&format!("{path}.DenseReluDense.wo.weight"), &[d_model, d_ff])?;
        Ok(DenseReluDense {
            norm: self.norm(&format!("{path}.layer_norm"))?,
            wi,
            wo: self.linear(&[wo]),
            activation,
            d_ff: d_ff as usize,
        })
    }

    fn projection(&self, path: &str, name: &str) -> Result<Stored, Error> {
        self.weights.tensor(&format!("{path}.{name}.weight"), &[self.config.inner(), self.config.d_model])
    }

    fn output(&self, path: &str) -> Result<Stored, Error> {
        self.weights.tensor(&format!("{path}.o.weight"), &[self.config.d_model, self.config.inner()])
    }

    fn linear(&self, matrices: &[Stored]) -> Linear {
        Linear::new(matrices, self.weight_type)
    }

    fn norm(&self, path: &str) -> Result<RmsNorm, Error> {
        let weight = self.weights.tensor(&format!("{path}.weight"), &[self.config.d_model])?.to_vec();
        Ok(RmsNorm { weight, epsilon: self.config.layer_norm_epsilon as f32, scale: 1.0 })
    }

    /// Only the first block of a stack has the table; all blocks use it.
    fn relative_attention_bias(&self, stack: &str) -> Result<Stored, Error> {
        let name = format!("{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight");
        self.weights.tensor(&name, &[self.config.relative_attention_num_buckets, self.config.num_heads])
    }
}
