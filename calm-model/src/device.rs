//! Chooses the device, which must be the first thing that a program does.
//!
//! The linker drops libtorch_cuda from binaries, since no symbol of it is used directly. So one binary serves
//! machines with and without CUDA, and the library is opened at start if it is wanted. libtorch asks for its
//! CUDA hooks only once: a call such as `tch::manual_seed` before the library is open would leave CUDA
//! switched off for good.

use tch::{Device, Kind, Tensor};

use crate::Error;

/// Turns `cpu`, `cuda` or `cuda:N` into a device.
///
/// Without a request it is the first CUDA device if there is one, else the CPU. It must be called before
/// anything else of libtorch.
///
/// # Errors
/// Fails if the name is not understood, or if CUDA was asked for and is not available (the message says why).
pub fn init(requested: Option<&str>) -> Result<Device, Error> {
    let index = match requested {
        None => None,
        Some("cpu") => return Ok(Device::Cpu),
        Some("cuda") => Some(0),
        Some(name) => {
            let index = name.strip_prefix("cuda:").and_then(|n| n.parse::<usize>().ok());
            Some(index.ok_or_else(|| {
                Error::Device(format!("unknown device `{name}`: expected cpu, cuda or cuda:N"))
            })?)
        }
    };
    let loaded = load_cuda_library();
    let available = tch::Cuda::is_available();
    match (index, loaded) {
        (None, _) => Ok(Device::cuda_if_available()),
        (Some(_), Err(reason)) => {
            Err(Error::Device(format!("CUDA is not available: libtorch_cuda cannot be loaded: {reason}")))
        }
        (Some(_), Ok(())) if !available => Err(Error::Device(
            "CUDA is not available: libtorch_cuda is loaded, but found no working NVIDIA driver or device"
                .to_owned(),
        )),
        (Some(index), Ok(())) => {
            let count = tch::Cuda::device_count().max(0) as usize;
            if index >= count {
                return Err(Error::Device(format!(
                    "cuda:{index} does not exist: {count} CUDA device(s) found"
                )));
            }
            Ok(Device::Cuda(index))
        }
    }
}

/// Copies integers to a device.
///
/// A GPU copies them out of memory that stays where it is, so that nothing waits for it.
pub(crate) fn upload(values: &[i64], device: Device) -> Tensor {
    let tensor = Tensor::from_slice(values);
    if !device.is_cuda() {
        return tensor;
    }
    pinned(&tensor, device).to_device_(device, Kind::Int64, true, false)
}

/// Copies a tensor of the processor to memory that stays where it is.
///
/// A GPU copies out of such memory while it computes.
pub fn pinned(tensor: &Tensor, device: Device) -> Tensor {
    // The public function of libtorch 2.11 warns on each call that names a device, and tch always names one.
    tensor.internal_pin_memory(device)
}

/// Several lists of integers on a device by one copy, `None` for each that is empty.
pub(crate) fn upload_lists<const N: usize>(lists: [Vec<i64>; N], device: Device) -> [Option<Tensor>; N] {
    if lists.iter().all(Vec::is_empty) {
        return [const { None }; N];
    }
    let all = upload(&lists.concat(), device);
    let mut end = 0;
    lists.map(|list| {
        let (start, length) = (end, list.len() as i64);
        end += length;
        (length > 0).then(|| all.narrow(0, start, length))
    })
}

#[cfg(unix)]
#[allow(unsafe_code)]
fn load_cuda_library() -> Result<(), String> {
    use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
    // SAFETY: libtorch_cuda's initialisers register kernels and hooks with the libtorch_cpu that this process
    // is linked to; they are made to run at any time before the first CUDA call.
    let library = unsafe { Library::open(Some("libtorch_cuda.so"), RTLD_NOW | RTLD_GLOBAL) };
    // Closing it would leave the registered kernels dangling.
    library.map(std::mem::forget).map_err(|error| error.to_string())
}

#[cfg(not(unix))]
fn load_cuda_library() -> Result<(), String> {
    Err("loading libtorch_cuda at start is supported on Unix only".to_owned())
}
