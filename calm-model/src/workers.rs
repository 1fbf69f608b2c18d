//! Decoding on several cores: one batch per core, rather than one product over all cores.
//!
//! The products of a decoding step are too small to be shared. With two threads inside libtorch 80 % of the time
//! went into waiting at barriers, and far more when another process wanted a core.

use calm_core::{all_cores, map_batches};
use tch::Device;

use crate::T5;

/// Workers that suit a device: all cores, or one for a GPU.
pub fn default_count(device: Device) -> usize {
    if device.is_cuda() { 1 } else { all_cores() }
}

/// Calls `f` on every item, on `workers` threads that each have a handle on the model's weights, and returns the results in
/// the order of the items. On the CPU, libtorch has one thread inside each worker.
pub fn map<T, R>(model: &T5, workers: usize, items: &[T], f: impl Fn(&T5, &T) -> R + Sync) -> Vec<R>
where
    T: Sync,
    R: Send,
{
    let mut models: Vec<T5> = (0..workers.min(items.len())).map(|_| model.share()).collect();
    map_batches(&mut models, items, |model, item| {
        // The number of threads belongs to the calling thread, and so does the switch for gradients.
        tch::set_num_threads(1);
        let _no_grad = tch::no_grad_guard();
        f(model, item)
    })
}
