//! The device that kernels are tested on.

use adamant::{Device, DeviceChoice};

/// Opens the first adapter, hardware before software.
///
/// # Panics
/// When there is none: a kernel test that did not run must not count as passed.
pub fn gpu() -> Device {
    Device::open(&DeviceChoice::Gpu).unwrap_or_else(|e| {
        panic!("no adapter: WGSL kernels cannot run; install one with `apt-get install mesa-vulkan-drivers` ({e})")
    })
}
