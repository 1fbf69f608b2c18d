//! Llama as a backbone: what a program sees of it. The parts of the network are named after the checkpoint's
//! tensors.

mod decoder;
mod load;
mod prompt;

use std::path::Path;
use std::sync::Arc;

use calm_checkpoint::{
    EngineKind, LLAMA_MODEL_TYPES, LlamaConfig, LoadOptions, Loader, Model, Teamwork, check_sources,
};
use calm_core::profile::{self, Part};
use calm_core::{Backbone, BackboneShape, EngineError, ExitClassifier, ExitHeads, Prompt, Token};

use self::decoder::Network;
use crate::Error;
use crate::linear::Processor;
use crate::origin::check_device;
use crate::pool::Pool;
use crate::session;
use crate::simd::InstructionSet;
use crate::team::Team;
use crate::weights::Weights;

/// The entry of this engine in the table of models.
pub static LOADER: Loader = Loader {
    engine: EngineKind::Cpu,
    model_types: LLAMA_MODEL_TYPES,
    load: |dir, options| Ok(Box::new(Llama::load(dir, options)?)),
};

/// A Llama, whose layers may stop after any.
pub struct Llama {
    network: Arc<Network>,
    processor: Processor,
    prompts: Pool<session::Memory>,
}

impl Llama {
    /// Reads a Hugging Face checkpoint directory or a GGUF file and packs it.
    ///
    /// # Errors
    /// A file is missing, invalid or truncated, a tensor is missing or has another shape than the
    /// configuration says, or the device is not the CPU.
    pub fn load(path: &Path, options: &LoadOptions) -> Result<Self, Error> {
        check_device(options)?;
        Ok(Self::of(Network::load(path, options)?, options.threads))
    }

    /// Packs weights that are in memory. Its fingerprint is empty.
    ///
    /// # Errors
    /// A tensor is missing or has another shape than the configuration says, or the device is not the CPU.
    pub fn new(config: &LlamaConfig, weights: &Weights, options: &LoadOptions) -> Result<Self, Error> {
        check_device(options)?;
        Ok(Self::of(Network::new(config, weights, options, usize::MAX)?, options.threads))
    }

    fn of(network: Network, threads: usize) -> Self {
        Self::share(Arc::new(network), InstructionSet::available()[0], threads)
    }

    /// A handle with threads and memory of its own.
    fn share(network: Arc<Network>, set: InstructionSet, threads: usize) -> Self {
        Llama { network, processor: Processor::new(Team::new(threads), set), prompts: Pool::default() }
    }

    /// What the checkpoint says about its network.
    pub fn config(&self) -> &LlamaConfig {
        &self.network.config
    }
}

impl Backbone for Llama {
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
        Ok(Box::new(prompt::Read::new(self, sources)?))
    }
}

impl Model for Llama {
    fn share(&self, threads: usize) -> Box<dyn Model> {
        Box::new(Llama::share(Arc::clone(&self.network), self.processor.set, threads))
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
        self.network.embed_tokens.rows()
    }

    fn is_decoder_only(&self) -> bool {
        true
    }

    fn teamwork(&self) -> Option<Teamwork> {
        Some(self.processor.team.teamwork())
    }
}
