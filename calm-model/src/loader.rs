//! T5 on libtorch in the table of models.

use std::path::Path;
use std::time::Instant;

use calm_checkpoint::{EngineKind, LoadOptions, Loader, Model, T5_MODEL_TYPES};
use calm_core::EngineError;
use tch::{Cuda, Device, Kind, Tensor};

use crate::{Error, T5, device};

/// Loads T5 checkpoints on libtorch.
pub static LOADER: Loader = Loader { engine: EngineKind::Libtorch, model_types: T5_MODEL_TYPES, load };

/// A GPU reads so much in less than a millisecond.
const READ_BYTES: usize = 1 << 30;

fn load(dir: &Path, options: &LoadOptions) -> Result<Box<dyn Model>, EngineError> {
    if options.weight_type.is_some() {
        return Err(Error::WeightType.into());
    }
    let device = device::init(options.device.as_deref())?;
    one_thread();
    Ok(Box::new(T5::load(dir, device)?))
}

/// Models of this size are too small for libtorch to split their products between threads: it would spend
/// four fifths of the time waiting for them to meet. The number belongs to the calling thread.
fn one_thread() {
    tch::set_num_threads(1);
}

impl Model for T5 {
    /// The threads that share an operation are those of the thread that decodes: one, after
    /// [`enter_thread`](Model::enter_thread).
    fn share(&self, _threads: usize) -> Box<dyn Model> {
        Box::new(T5::share(self))
    }

    fn fingerprint(&self) -> &str {
        T5::fingerprint(self)
    }

    fn device(&self) -> String {
        if T5::device(self).is_cuda() { "libtorch cuda" } else { "libtorch cpu" }.to_owned()
    }

    fn unexpected(&self) -> &[String] {
        T5::unexpected(self)
    }

    fn num_inputs(&self) -> usize {
        self.config().vocab_size as usize
    }

    fn enter_thread(&self) {
        one_thread();
    }

    fn synchronize(&self) {
        if let Device::Cuda(index) = T5::device(self) {
            Cuda::synchronize(index as i64);
        }
    }

    fn memory_rate(&self) -> Option<f64> {
        let device = T5::device(self);
        if !device.is_cuda() {
            return None;
        }
        let block = Tensor::ones([(READ_BYTES / size_of::<f32>()) as i64], (Kind::Float, device));
        let seconds = || {
            self.synchronize();
            let start = Instant::now();
            let _sum = block.sum(Kind::Float);
            self.synchronize();
            start.elapsed().as_secs_f64()
        };
        (0..4).map(|_| READ_BYTES as f64 / seconds()).reduce(f64::max)
    }

    fn decodes_side_by_side(&self) -> bool {
        !T5::device(self).is_cuda()
    }
}
