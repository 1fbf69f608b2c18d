//! The network against independent decodings, and what a damaged checkpoint is answered with.

#![allow(clippy::unwrap_used)]

use std::path::PathBuf;
use std::sync::LazyLock;

use tch::Device;

mod checkpoints;
mod reference;
#[path = "../reference/cases.rs"]
mod shared;

/// All tests compute here: `CALM_TEST_DEVICE=cuda:0 cargo test -p calm-model` runs them on a GPU. The device is
/// chosen once, since libtorch looks for CUDA once, and two threads would race for it.
fn device() -> Device {
    static DEVICE: LazyLock<Device> = LazyLock::new(|| {
        let name = std::env::var("CALM_TEST_DEVICE");
        calm_model::device::init(Some(name.as_deref().unwrap_or("cpu"))).unwrap()
    });
    let device = *DEVICE;
    // The number of threads belongs to the calling thread.
    tch::set_num_threads(1);
    device
}

/// Finds the folder of a reference checkpoint. Who asks for it goes on to libtorch, so that the device has to be
/// chosen first.
fn checkpoint(name: &str) -> PathBuf {
    device();
    shared::checkpoint(name)
}
