//! T5 on the engine that was asked for, ready for the runner.

mod backbone;

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use anyhow::{bail, ensure};
use calm_checkpoint::Tokenizer;
use calm_core::Token;
pub use calm_cpu::{WeightType, Weights};

pub use self::backbone::{Encoded, EngineError, Session, T5};
use crate::runner::{Engine, TextCodec};

/// An implementation that executes a backbone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EngineKind {
    /// `calm-cpu`
    Cpu,
    /// `calm-model`, on CPU and CUDA
    Libtorch,
}

impl EngineKind {
    /// All engines.
    pub const ALL: [EngineKind; 2] = [EngineKind::Cpu, EngineKind::Libtorch];

    /// The name in flags and files.
    pub fn name(self) -> &'static str {
        match self {
            EngineKind::Cpu => "cpu",
            EngineKind::Libtorch => "libtorch",
        }
    }
}

impl fmt::Display for EngineKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl FromStr for EngineKind {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> anyhow::Result<Self> {
        match EngineKind::ALL.into_iter().find(|kind| kind.name() == name) {
            Some(kind) => Ok(kind),
            None => bail!("unknown engine `{name}`: expected cpu or libtorch"),
        }
    }
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
    /// Workers that decode side by side; one on CUDA. At least one.
    pub workers: usize,
    /// Threads that share each operation of a CPU engine's worker. At least one.
    pub threads_per_worker: usize,
}

impl EngineOptions {
    /// Divides `threads` among as many batches as are decoded side by side; what is left makes each of them faster.
    pub fn divide(mut self, threads: usize, batches: usize) -> Self {
        self.workers = threads.min(batches).max(1);
        self.threads_per_worker = (threads / self.workers).max(1);
        self
    }
}

/// The model of a checkpoint directory.
///
/// # Errors
/// There is no such engine or device in this program or machine, or the checkpoint or its tokenizer cannot be read.
pub fn load_engine(directory: &Path, options: &EngineOptions) -> anyhow::Result<Engine<T5, Codec>> {
    let engine = load_backbones(directory, options)?;
    let unexpected = engine.backbones[0].unexpected();
    if !unexpected.is_empty() {
        eprintln!("note: tensors of the checkpoint that are not used: {}", unexpected.join(", "));
    }
    let codec = Codec(Tokenizer::load(&directory.join("tokenizer.json"))?);
    let Engine { backbones, fingerprint, device, prepare_thread, synchronize, .. } = engine;
    Ok(Engine { backbones, codec, fingerprint, device, prepare_thread, synchronize })
}

/// Like [`load_engine`], but loads no tokenizer and prints no note about unused tensors.
///
/// # Errors
/// As [`load_engine`].
pub fn load_backbones(directory: &Path, options: &EngineOptions) -> anyhow::Result<Engine<T5, ()>> {
    let asked_for_cuda = options.device.as_deref().is_some_and(|device| device != "cpu");
    let kind = match options.kind {
        Some(EngineKind::Cpu) if asked_for_cuda => {
            bail!("the CPU engine has no device {}", options.device.as_deref().unwrap_or_default())
        }
        Some(kind) => kind,
        None if asked_for_cuda || options.device.is_none() && cuda_is_available() => EngineKind::Libtorch,
        None => EngineKind::Cpu,
    };
    match kind {
        EngineKind::Cpu => load_cpu(directory, options),
        EngineKind::Libtorch => {
            ensure!(
                options.weight_type.is_none(),
                "libtorch decodes in f32; other types are for the CPU engine"
            );
            load_libtorch(directory, options)
        }
    }
}

fn load_cpu(directory: &Path, options: &EngineOptions) -> anyhow::Result<Engine<T5, ()>> {
    let cpu_options =
        calm_cpu::Options { weight_type: options.weight_type, threads: options.threads_per_worker.max(1) };
    let model = calm_cpu::T5::load(directory, &cpu_options)?;
    // 8-bit weights are another model: what was certified for the one says nothing about the other.
    let fingerprint = match model.weight_type() {
        WeightType::Int8 => format!("int8-{}", model.fingerprint()),
        WeightType::F32 | WeightType::Bf16 => model.fingerprint().to_owned(),
    };
    let device = format!("cpu {}", model.weight_type().name());
    let mut backbones: Vec<T5> =
        (1..options.workers).map(|_| T5::Cpu(model.share(cpu_options.threads))).collect();
    backbones.push(T5::Cpu(model));
    let (prepare_thread, synchronize): (fn(), fn(&T5)) = (|| {}, |_| {});
    Ok(Engine { backbones, codec: (), fingerprint, device, prepare_thread, synchronize })
}

#[cfg(feature = "libtorch")]
fn load_libtorch(directory: &Path, options: &EngineOptions) -> anyhow::Result<Engine<T5, ()>> {
    let device = calm_model::device::init(options.device.as_deref())?;
    one_thread();
    let model = calm_model::T5::load(directory, device)?;
    // One process has one queue of work for a GPU; a second worker would only wait for the first.
    let workers = if device.is_cuda() { 1 } else { options.workers };
    let fingerprint = model.fingerprint().to_owned();
    let mut backbones: Vec<T5> = (1..workers).map(|_| T5::Libtorch(Box::new(model.share()))).collect();
    backbones.push(T5::Libtorch(Box::new(model)));
    let device = if device.is_cuda() { "libtorch cuda" } else { "libtorch cpu" }.to_owned();
    Ok(Engine { backbones, codec: (), fingerprint, device, prepare_thread: one_thread, synchronize })
}

#[cfg(not(feature = "libtorch"))]
fn load_libtorch(_: &Path, _: &EngineOptions) -> anyhow::Result<Engine<T5, ()>> {
    bail!("this program was built without libtorch; build it with --features libtorch")
}

#[cfg(feature = "libtorch")]
fn cuda_is_available() -> bool {
    calm_model::device::init(None).is_ok_and(|device| device.is_cuda())
}

#[cfg(not(feature = "libtorch"))]
fn cuda_is_available() -> bool {
    false
}

/// Models of this size are too small for libtorch to split their products between threads: it would spend four fifths of
/// the time waiting for them to meet.
#[cfg(feature = "libtorch")]
fn one_thread() {
    tch::set_num_threads(1);
}

#[cfg(feature = "libtorch")]
fn synchronize(model: &T5) {
    if let T5::Libtorch(model) = model
        && let tch::Device::Cuda(index) = model.device()
    {
        tch::Cuda::synchronize(index as i64);
    }
}

/// The tokenizer of a checkpoint.
pub struct Codec(Tokenizer);

impl TextCodec for Codec {
    fn encode(&self, text: &str) -> anyhow::Result<Vec<Token>> {
        Ok(self.0.encode(text)?)
    }

    fn decode(&self, tokens: &[Token]) -> anyhow::Result<String> {
        Ok(self.0.decode(tokens)?)
    }
}
