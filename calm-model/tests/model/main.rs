//! Tests of the network against independent decodings, and of the errors about damaged checkpoints.

#![allow(clippy::unwrap_used)]

use std::path::PathBuf;
use std::sync::LazyLock;

use tch::Device;

#[path = "../reference/beam_cases.rs"]
mod beam_cases;
mod checkpoints;
#[path = "../reference/damaged.rs"]
mod damaged;
mod gguf;
#[path = "../reference/local_errors.rs"]
mod local_errors;
mod reference;
#[path = "../reference/cases.rs"]
mod shared;

/// Returns the device of all tests, which `CALM_TEST_DEVICE=cuda:0 cargo test -p calm-model` sets to a GPU.
///
/// It is chosen once, since libtorch looks for CUDA once, and two threads would race for it.
fn device() -> Device {
    static DEVICE: LazyLock<Device> = LazyLock::new(|| {
        let name = std::env::var("CALM_TEST_DEVICE");
        calm_model::device::init(Some(name.as_deref().unwrap_or("cpu"))).unwrap()
    });
    let device = *DEVICE;
    // The number of threads is a setting of the calling thread.
    tch::set_num_threads(1);
    device
}

/// Finds the folder of a reference checkpoint, after choosing the device.
///
/// Whoever asks for the folder goes on to libtorch, where the device has to be chosen first.
fn checkpoint(name: &str) -> PathBuf {
    device();
    shared::checkpoint(name)
}
