//! What a model knows of the checkpoint it was loaded from, whatever its network.

use std::path::{Path, PathBuf};

use calm_checkpoint::{CLASSIFIER_BIAS, CLASSIFIER_WEIGHT, CacheType, LoadOptions, folder_of};
use calm_core::{BackboneShape, ExitClassifier, ExitHeads};

use crate::Error;
use crate::elementwise::RmsNorm;
use crate::head::Head;
use crate::linear::Packing;
use crate::weights::{Stored, Table, Weights};

/// What belongs to a checkpoint beside its network.
pub(crate) struct Origin {
    pub(crate) classifier: Option<ExitClassifier>,
    pub(crate) exit_heads: Option<ExitHeads>,
    /// The shared head without the tokens that exit heads do not know, where they know a part of them.
    pub(crate) exit_head: Option<Head>,
    /// How the weights lie in memory.
    pub(crate) packing: Packing,
    /// How keys and values are kept.
    pub(crate) cache_type: CacheType,
    /// What the matrices of a layer consist of: a type of weights, or of blocks.
    pub(crate) weights: &'static str,
    pub(crate) folder: Option<PathBuf>,
    pub(crate) fingerprint: String,
    pub(crate) unexpected: Vec<String>,
}

/// A checkpoint that was read.
pub(crate) struct Found<'a> {
    pub(crate) checkpoint: &'a Path,
    pub(crate) weights: &'a Weights,
    /// The norm in front of the head.
    pub(crate) norm: &'a RmsNorm,
    pub(crate) options: &'a LoadOptions,
}

impl Origin {
    /// Reads what weights have beside them. `matrix` is the name of some matrix of a layer.
    pub(crate) fn new(
        weights: &Weights,
        options: &LoadOptions,
        shape: &BackboneShape,
        matrix: &str,
    ) -> Result<Self, Error> {
        let classifier = match (
            weights.optional_tensor(CLASSIFIER_WEIGHT, &[shape.d_model as i64])?,
            weights.optional_tensor(CLASSIFIER_BIAS, &[1])?,
        ) {
            (Some(weight), Some(bias)) => {
                Some(ExitClassifier { weight: weight.to_vec(), bias: bias.to_vec()[0] })
            }
            _ => None,
        };
        let packing = options.weight_type.map_or(Packing::AsStored, Packing::As);
        Ok(Origin {
            classifier,
            exit_heads: None,
            exit_head: None,
            packing,
            cache_type: options.cache_type,
            weights: match packing {
                Packing::As(weight_type) => weight_type.name(),
                Packing::AsStored => weights.type_in_memory(matrix),
            },
            folder: None,
            fingerprint: String::new(),
            unexpected: weights.unexpected(),
        })
    }

    /// Reads what lies beside the weights of a checkpoint. Costs of exit heads are added to those of the
    /// shape; where these know a part of the vocabulary, they end in these rows of the head `stored`.
    pub(crate) fn find(
        &mut self,
        found: Found<'_>,
        shape: &mut BackboneShape,
        stored: impl FnOnce() -> Result<Stored, Error>,
    ) -> Result<(), Error> {
        let Found { checkpoint, weights, norm, options } = found;
        let hash = weights.fingerprint()?;
        self.folder = Some(folder_of(checkpoint));
        if !options.without_exit_heads {
            self.exit_heads = weights.exit_heads(shape)?;
        }
        if let Some(heads) = &self.exit_heads {
            shape.flops.exit_head = heads.flops(shape);
            shape.bytes.exit_head = heads.bytes(shape);
            if let Some(tokens) = heads.vocabulary() {
                let rows = Table::new(stored()?.select(tokens), self.packing);
                self.exit_head = Some(Head::new(norm.clone(), rows, self.packing));
            }
        }
        // What rounds is another model: what was certified for the one says nothing about the other.
        self.fingerprint = match self.cache_type {
            CacheType::F32 => hash,
            cache_type => format!("cache-{cache_type}-{hash}"),
        };
        if weights.are_rounded_by(self.packing) {
            self.fingerprint = format!("{}-{}", self.weights, self.fingerprint);
        }
        Ok(())
    }

    /// What the types in memory are called, as [`device`](calm_checkpoint::Model::device) has it.
    pub(crate) fn device(&self) -> String {
        match self.cache_type {
            CacheType::F32 => format!("cpu {}", self.weights),
            cache_type => format!("cpu {} cache-{cache_type}", self.weights),
        }
    }
}

/// Refuses devices that are not the CPU.
pub(crate) fn check_device(options: &LoadOptions) -> Result<(), Error> {
    match options.device.as_deref() {
        None | Some("cpu") => Ok(()),
        Some(device) => Err(Error::Device(device.to_owned())),
    }
}
