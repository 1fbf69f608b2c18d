//! The networks on libtorch in the table of models, and what they say of themselves.

use std::path::Path;
use std::time::Instant;

use calm_checkpoint::{CacheType, EngineKind, LLAMA_MODEL_TYPES, LoadOptions, Loader, Model, T5_MODEL_TYPES};
use calm_core::{Backbone, BackboneShape, EngineError, ExitClassifier, ExitHeads, Prompt, Token};
use tch::{Cuda, Device, Kind, Tensor};

use crate::{Error, Llama, T5, device};

/// Loads T5 checkpoints on libtorch.
pub static T5_LOADER: Loader = Loader {
    engine: EngineKind::Libtorch,
    model_types: T5_MODEL_TYPES,
    load: |dir, options| {
        let load = if options.without_exit_heads { T5::load_backbone } else { T5::load };
        Ok(Box::new(load(dir, device_of(options)?)?))
    },
};

/// Loads Llama checkpoints on libtorch.
pub static LLAMA_LOADER: Loader = Loader {
    engine: EngineKind::Libtorch,
    model_types: LLAMA_MODEL_TYPES,
    load: |dir, options| {
        let load = if options.without_exit_heads { Llama::load_backbone } else { Llama::load };
        Ok(Box::new(load(dir, device_of(options)?)?))
    },
};

/// A GPU reads so much in less than a millisecond.
const READ_BYTES: usize = 1 << 30;

/// The device that a model is to be loaded on.
fn device_of(options: &LoadOptions) -> Result<Device, Error> {
    if options.weight_type.is_some() {
        return Err(Error::WeightType);
    }
    if options.cache_type != CacheType::F32 {
        return Err(Error::CacheType);
    }
    let device = device::init(options.device.as_deref())?;
    one_thread();
    Ok(device)
}

/// Models of this size are too small for libtorch to split their products between threads: it would spend
/// four fifths of the time waiting for them to meet. The number belongs to the calling thread.
fn one_thread() {
    tch::set_num_threads(1);
}

/// Implements the traits of a model for a network: all but how it reads sources is the same.
macro_rules! model {
    ($network:ty, decoder_only: $decoder_only:literal) => {
        impl Backbone for $network {
            fn shape(&self) -> &BackboneShape {
                &self.about.shape
            }

            fn exit_classifier(&self) -> Option<&ExitClassifier> {
                self.about.classifier.as_ref()
            }

            fn exit_heads(&self) -> Option<&ExitHeads> {
                self.about.exit_heads.as_ref()
            }

            fn folder(&self) -> Option<&Path> {
                self.about.folder.as_deref()
            }

            fn read<'a>(&'a self, sources: &[&[Token]]) -> Result<Box<dyn Prompt + 'a>, EngineError> {
                self.read_sources(sources)
            }
        }

        impl Model for $network {
            /// The threads that share an operation are those of the thread that decodes: one, after
            /// [`enter_thread`](Model::enter_thread).
            fn share(&self, _threads: usize) -> Box<dyn Model> {
                Box::new(<$network>::share(self))
            }

            fn fingerprint(&self) -> &str {
                &self.about.fingerprint
            }

            fn device(&self) -> String {
                if <$network>::device(self).is_cuda() { "libtorch cuda" } else { "libtorch cpu" }.to_owned()
            }

            fn unexpected(&self) -> &[String] {
                &self.about.unexpected
            }

            fn num_inputs(&self) -> usize {
                self.config().vocab_size as usize
            }

            fn is_decoder_only(&self) -> bool {
                $decoder_only
            }

            fn enter_thread(&self) {
                one_thread();
            }

            fn synchronize(&self) {
                synchronize(<$network>::device(self));
            }

            fn memory_rate(&self) -> Option<f64> {
                memory_rate(<$network>::device(self))
            }

            fn decodes_side_by_side(&self) -> bool {
                !<$network>::device(self).is_cuda()
            }
        }
    };
}

model!(T5, decoder_only: false);
model!(Llama, decoder_only: true);

fn synchronize(device: Device) {
    if let Device::Cuda(index) = device {
        Cuda::synchronize(index as i64);
    }
}

fn memory_rate(device: Device) -> Option<f64> {
    if !device.is_cuda() {
        return None;
    }
    let block = Tensor::ones([(READ_BYTES / size_of::<f32>()) as i64], (Kind::Float, device));
    let seconds = || {
        synchronize(device);
        let start = Instant::now();
        let _sum = block.sum(Kind::Float);
        synchronize(device);
        start.elapsed().as_secs_f64()
    };
    (0..4).map(|_| READ_BYTES as f64 / seconds()).reduce(f64::max)
}
