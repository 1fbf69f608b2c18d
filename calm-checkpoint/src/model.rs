//! What a program knows of a model beyond its decoding, and how an engine says which models it loads.

use std::path::Path;

use calm_core::{Backbone, EngineError};
use calm_names::names;

use crate::{CacheType, WeightType};

/// A backbone that was loaded from a checkpoint.
pub trait Model: Backbone {
    /// Another handle on the same weights with threads of its own, to decode side by side.
    fn share(&self, threads: usize) -> Box<dyn Model>;

    /// Changes whenever outputs may by more than the order of sums: a hash of weights, configuration and
    /// tokenizer, with `TYPE-` in front where the weights in memory are those of the checkpoint rounded to
    /// that type, and `cache-TYPE-` where keys and values are rounded. What is not rounded has the same
    /// fingerprint on every engine.
    fn fingerprint(&self) -> &str;

    /// What computes, such as `cpu int8`, `cpu f32 cache-f16` or `libtorch cuda`: times of different ones
    /// cannot be compared.
    fn device(&self) -> String;

    /// Tensors of the checkpoint that the model has no use for.
    fn unexpected(&self) -> &[String];

    /// Sources may hold the tokens below this one. Outputs may have fewer, where the vocabulary is padded.
    fn num_inputs(&self) -> usize;

    /// Whether sources are what outputs go on from, and not read by an encoder.
    fn is_decoder_only(&self) -> bool {
        false
    }

    /// Called first thing in each thread that decodes with it.
    fn enter_thread(&self) {}

    /// Waits until the device has done what it was told, so that a call can be timed.
    fn synchronize(&self) {}

    /// How many bytes a second its device reads where it adds up a block of its own memory. `None` on the
    /// CPU.
    fn memory_rate(&self) -> Option<f64> {
        None
    }

    /// How often its threads have worked together so far. `None` where the engine does not count that.
    fn teamwork(&self) -> Option<Teamwork> {
        None
    }

    /// Whether batches decoded side by side are faster than one after the other. One process has one queue of
    /// work for a GPU, where a second worker would only wait for the first.
    fn decodes_side_by_side(&self) -> bool {
        true
    }
}

/// What the threads of an engine did together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Teamwork {
    /// Number of operations that they were there to share.
    pub operations: u64,
    /// Number of those that fewer threads did, since the system did not run all of them in time.
    pub with_fewer: u64,
}

/// An implementation that executes models.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EngineKind {
    /// Kernels of this project for CPUs.
    Cpu,
    /// libtorch, on CPU and CUDA.
    Libtorch,
}

names!(EngineKind, "engine", { Cpu => "cpu", Libtorch => "libtorch" });

/// An entry of the table of models: one architecture on one engine.
pub struct Loader {
    /// What executes it.
    pub engine: EngineKind,
    /// Values of `model_type` in `config.json` that mean this architecture.
    pub model_types: &'static [&'static str],
    /// Loads a checkpoint directory.
    pub load: fn(&Path, &LoadOptions) -> Result<Box<dyn Model>, EngineError>,
}

/// How a model is to be loaded.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// `cpu`, `cuda` or `cuda:N`; `None` takes the first CUDA device if the engine knows one, else the CPU.
    pub device: Option<String>,
    /// How weights lie in memory; `None` takes the checkpoint's own type.
    pub weight_type: Option<WeightType>,
    /// How keys and values are kept.
    pub cache_type: CacheType,
    /// Threads that share each operation, at least one.
    pub threads: usize,
    /// Leaves out the exit heads that lie beside the checkpoint, whatever they are: for what trains others.
    pub without_exit_heads: bool,
}

impl Default for LoadOptions {
    /// One thread, and numbers as the checkpoint has them.
    fn default() -> Self {
        LoadOptions {
            device: None,
            weight_type: None,
            cache_type: CacheType::default(),
            threads: 1,
            without_exit_heads: false,
        }
    }
}
