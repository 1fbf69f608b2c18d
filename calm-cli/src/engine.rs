//! The flags that choose an engine, the same for every command that decodes.

use calm_core::all_cores;
use calm_experiments::engine::{EngineKind, EngineOptions, WeightType};

#[derive(clap::Args)]
pub(crate) struct EngineArguments {
    /// cpu or libtorch; libtorch where there is a CUDA device, else cpu
    #[arg(long, value_name = "E")]
    pub(crate) engine: Option<EngineKind>,
    /// cpu, cuda or cuda:N; the first CUDA device if there is one, else the CPU
    #[arg(long, value_name = "DEVICE")]
    pub(crate) device: Option<String>,
    /// How the cpu engine holds weights: f32, bf16 or int8; as the checkpoint if not given
    #[arg(long, value_name = "TYPE")]
    pub(crate) dtype: Option<WeightType>,
    /// Threads on the CPU; all cores if not given. Batches are decoded side by side, one on each, and fewer batches share them
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<usize>,
}

impl EngineArguments {
    /// The first flag that was given, if any was.
    pub(crate) fn given(&self) -> Option<&'static str> {
        let flags = [
            ("--engine", self.engine.is_some()),
            ("--device", self.device.is_some()),
            ("--dtype", self.dtype.is_some()),
            ("--threads", self.threads.is_some()),
        ];
        flags.into_iter().find(|(_, given)| *given).map(|(flag, _)| flag)
    }

    /// For decoding this many batches.
    pub(crate) fn options(&self, batches: usize) -> EngineOptions {
        let threads = self.threads.unwrap_or_else(all_cores);
        let options = EngineOptions {
            kind: self.engine,
            device: self.device.clone(),
            weight_type: self.dtype,
            ..EngineOptions::default()
        };
        options.divide(threads, batches)
    }
}
