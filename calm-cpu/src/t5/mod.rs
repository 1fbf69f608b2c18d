//! T5 v1.0 and v1.1 as a backbone: what a program sees of it. The parts of the network are named after the
//! checkpoint's tensors.

mod decoder;
mod encoder;
mod load;

use std::path::Path;
use std::sync::Arc;

use calm_checkpoint::{
    EngineKind, Error as CheckpointError, LoadOptions, Loader, Model, T5_MODEL_TYPES, T5Config, Teamwork,
    check_sources,
};
use calm_core::profile::{self, Part};
use calm_core::{
    Backbone, BackboneShape, DecoderSession, EngineError, ExitClassifier, ExitHeads, Prompt, Token,
};

use self::decoder::{Decoder, Decoding};
use self::encoder::Encoder;
use crate::Error;
use crate::caches::LayerCaches;
use crate::linear::Processor;
use crate::origin::{Origin, check_device};
use crate::pool::Pool;
use crate::session::{self, Session};
use crate::simd::InstructionSet;
use crate::team::Team;
use crate::weights::Weights;

/// The entry of this engine in the table of models.
pub static LOADER: Loader = Loader {
    engine: EngineKind::Cpu,
    model_types: T5_MODEL_TYPES,
    load: |dir, options| Ok(Box::new(T5::load(dir, options)?)),
};

/// A T5 encoder-decoder whose decoder may stop after any layer.
pub struct T5 {
    network: Arc<Network>,
    processor: Processor,
    encoders: Pool<encoder::Memory>,
    sessions: Pool<session::Memory>,
}

/// What all handles on a model share.
struct Network {
    config: T5Config,
    shape: BackboneShape,
    encoder: Encoder,
    decoder: Decoder,
    origin: Origin,
}

/// A batch of sources that the encoder has read.
struct Encoded<'a> {
    model: &'a T5,
    /// The encoder's output for each source: [source length, d_model]
    sources: Vec<Vec<f32>>,
}

impl T5 {
    /// Reads a Hugging Face checkpoint directory and packs it.
    ///
    /// # Errors
    /// A file is missing, invalid or truncated, a tensor is missing or has another shape than `config.json`
    /// says, or the device is not the CPU.
    pub fn load(dir: &Path, options: &LoadOptions) -> Result<Self, Error> {
        check_device(options)?;
        Ok(Self::of(Network::load(dir, options)?, options.threads))
    }

    /// Packs weights that are in memory. Its fingerprint is empty.
    ///
    /// # Errors
    /// A tensor is missing or has another shape than the configuration says, or the device is not the CPU.
    pub fn new(config: &T5Config, weights: &Weights, options: &LoadOptions) -> Result<Self, Error> {
        check_device(options)?;
        Ok(Self::of(Network::new(config, weights, options, usize::MAX)?, options.threads))
    }

    fn of(network: Network, threads: usize) -> Self {
        Self::share(Arc::new(network), InstructionSet::available()[0], threads)
    }

    /// A handle with threads and memory of its own.
    fn share(network: Arc<Network>, set: InstructionSet, threads: usize) -> Self {
        let processor = Processor::new(Team::new(threads), set);
        T5 { network, processor, encoders: Pool::default(), sessions: Pool::default() }
    }

    /// `config.json`.
    pub fn config(&self) -> &T5Config {
        &self.network.config
    }
}

impl Backbone for T5 {
    fn shape(&self) -> &BackboneShape {
        &self.network.shape
    }

    fn exit_classifier(&self) -> Option<&ExitClassifier> {
        self.network.origin.classifier.as_ref()
    }

    fn exit_heads(&self) -> Option<&ExitHeads> {
        self.network.origin.exit_heads.as_ref()
    }

    fn folder(&self) -> Option<&Path> {
        self.network.origin.folder.as_deref()
    }

    fn read<'a>(&'a self, sources: &[&[Token]]) -> Result<Box<dyn Prompt + 'a>, EngineError> {
        let _part = profile::enter(Part::Encoder);
        check_sources(sources, self.num_inputs())?;
        // Each is encoded by itself, so that there is no padding to compute and the others of a batch cannot
        // change a result.
        let mut memory = self.encoders.take();
        let encode = |(row, source): (usize, &&[Token])| {
            let encoded = self.network.encode(&self.processor, source, &mut memory);
            encoded.ok_or(CheckpointError::EncoderNotFinite { row })
        };
        let encoded: Result<Vec<_>, _> = sources.iter().enumerate().map(encode).collect();
        self.encoders.give(memory);
        Ok(Box::new(Encoded { model: self, sources: encoded? }))
    }
}

impl Prompt for Encoded<'_> {
    fn shape(&self) -> &BackboneShape {
        self.model.shape()
    }

    fn first_inputs(&self) -> Vec<Token> {
        vec![self.model.config().start_token(); self.sources.len()]
    }

    fn start(&self, _max_tokens: usize) -> Result<Box<dyn DecoderSession + '_>, EngineError> {
        let T5 { network, processor, sessions, .. } = self.model;
        let (mut memory, rows) = (sessions.take(), self.sources.len());
        let blocks = &network.decoder.blocks;
        memory.caches.resize_with(blocks.len(), LayerCaches::default);
        for (caches, block) in memory.caches.iter_mut().zip(blocks) {
            caches.begin(rows, block.self_attention.heads, Some(block.cross_attention.heads));
        }
        let decoding = Decoding { network, sources: &self.sources };
        Ok(Box::new(Session::new(decoding, processor, vec![0; rows], memory, sessions)))
    }
}

impl Model for T5 {
    fn share(&self, threads: usize) -> Box<dyn Model> {
        Box::new(T5::share(Arc::clone(&self.network), self.processor.set, threads))
    }

    fn fingerprint(&self) -> &str {
        &self.network.origin.fingerprint
    }

    fn device(&self) -> String {
        self.network.origin.device()
    }

    fn unexpected(&self) -> &[String] {
        &self.network.origin.unexpected
    }

    fn num_inputs(&self) -> usize {
        self.network.encoder.embed_tokens.rows()
    }

    fn teamwork(&self) -> Option<Teamwork> {
        Some(self.processor.team.teamwork())
    }
}
