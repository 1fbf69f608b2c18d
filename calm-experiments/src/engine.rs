//! T5 on libtorch as the engine of a run.

use std::path::Path;

use calm_checkpoint::Tokenizer;
use calm_core::Token;
use calm_model::T5;
use tch::Device;

use crate::runner::{Engine, TextCodec};

/// The model of a checkpoint directory, once for each of `threads` workers; on a GPU once.
///
/// # Errors
/// There is no such device, or the checkpoint or its tokenizer cannot be read.
pub fn load_engine(
    directory: &Path,
    device: Option<&str>,
    threads: usize,
) -> anyhow::Result<Engine<T5, Codec>> {
    let device = calm_model::device::init(device)?;
    one_thread();
    let model = T5::load(directory, device)?;
    if !model.unexpected().is_empty() {
        eprintln!("note: tensors of the checkpoint that are not used: {}", model.unexpected().join(", "));
    }
    let tokenizer = Tokenizer::load(&directory.join("tokenizer.json"))?;
    // One process has one queue of work for a GPU; a second worker would only wait for the first.
    let workers = if device.is_cuda() { 1 } else { threads };
    let fingerprint = model.fingerprint().to_owned();
    let mut backbones: Vec<T5> = (1..workers).map(|_| model.share()).collect();
    backbones.push(model);
    Ok(Engine {
        backbones,
        codec: Codec(tokenizer),
        fingerprint,
        device: if device.is_cuda() { "cuda" } else { "cpu" }.to_owned(),
        prepare_thread: one_thread,
        synchronize,
    })
}

/// Models of this size are too small for libtorch to split their products between threads: it would spend four fifths of
/// the time waiting for them to meet.
fn one_thread() {
    tch::set_num_threads(1);
}

fn synchronize(model: &T5) {
    if let Device::Cuda(index) = model.device() {
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
