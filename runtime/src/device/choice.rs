//! Which device to open, and opening it.

use super::Device;
#[cfg(feature = "gpu")]
use super::Executor;
use crate::error::{Error, Result};
#[cfg(feature = "gpu")]
use crate::gpu::{self, Gpu};

/// Which device to open.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum DeviceChoice {
    /// A hardware GPU if there is one, else the CPU executor.
    #[default]
    Auto,
    Cpu,
    /// The first adapter, hardware before software.
    Gpu,
    /// An adapter by its index, or by a part of its name.
    Named(String),
}

impl std::str::FromStr for DeviceChoice {
    type Err = std::convert::Infallible;

    fn from_str(s: &str) -> std::result::Result<Self, Self::Err> {
        Ok(match s {
            "auto" => Self::Auto,
            "cpu" => Self::Cpu,
            "gpu" => Self::Gpu,
            name => Self::Named(name.to_owned()),
        })
    }
}

impl Device {
    /// Opens a device. In a browser, where that would have to wait, it is the CPU executor or nothing:
    /// [`Device::open_async`] opens GPUs there.
    ///
    /// # Errors
    /// [`Error::Device`] when there is no such device, or it fails.
    pub fn open(choice: &DeviceChoice) -> Result<Self> {
        match choice {
            DeviceChoice::Cpu => Ok(Self::cpu()),
            #[cfg(feature = "gpu")]
            other => Self::open_adapter(other),
            #[cfg(not(feature = "gpu"))]
            DeviceChoice::Auto => Ok(Self::cpu()),
            #[cfg(not(feature = "gpu"))]
            other => Err(Error::Device(format!("{other:?}: this build has no GPU support (feature `gpu`)"))),
        }
    }

    /// As [`Device::open`], for those who may not wait: a browser's one GPU comes in a turn of its loop. Elsewhere it
    /// is the same.
    ///
    /// # Errors
    /// As [`Device::open`].
    pub async fn open_async(choice: &DeviceChoice) -> Result<Self> {
        #[cfg(all(feature = "gpu", target_arch = "wasm32"))]
        if *choice != DeviceChoice::Cpu {
            let adapters = gpu::adapters_async().await;
            return match Self::choose_adapter(choice, &adapters)? {
                Some(index) => Ok(Self::new(Executor::Gpu(Box::new(Gpu::open_async(index).await?)))),
                None => Ok(Self::cpu()),
            };
        }
        Self::open(choice)
    }

    #[cfg(feature = "gpu")]
    fn open_adapter(choice: &DeviceChoice) -> Result<Self> {
        match Self::choose_adapter(choice, &gpu::adapters())? {
            Some(index) => Self::adapter(index),
            None => Ok(Self::cpu()),
        }
    }

    /// The index of the adapter that is meant; none, where that is the CPU executor.
    #[cfg(feature = "gpu")]
    fn choose_adapter(choice: &DeviceChoice, adapters: &[gpu::AdapterInfo]) -> Result<Option<usize>> {
        let index = match choice {
            DeviceChoice::Auto => return Ok(adapters.iter().position(|a| !a.software)),
            DeviceChoice::Named(name) => {
                let wanted = name.to_lowercase();
                let by_index = name.parse().ok().filter(|&i: &usize| i < adapters.len());
                let by_name = || adapters.iter().position(|a| a.name.to_lowercase().contains(&wanted));
                by_index.or_else(by_name).ok_or_else(|| {
                    Error::Device(format!("no adapter is called '{name}'; `adamant devices` lists them"))
                })?
            }
            _ if adapters.is_empty() && cfg!(target_arch = "wasm32") => {
                return Err(Error::Device(
                    "no WebGPU adapter; one comes from Device::open_async alone, in a browser that has it"
                        .into(),
                ));
            }
            _ if adapters.is_empty() => {
                return Err(Error::Device(
                    "no Vulkan, Metal or DX12 adapter; install a driver (on Debian without a GPU: \
                     apt-get install mesa-vulkan-drivers) or use --device cpu"
                        .into(),
                ));
            }
            _ => 0,
        };
        Ok(Some(index))
    }

    /// An adapter by its index in [`crate::adapters`].
    #[cfg(feature = "gpu")]
    pub(crate) fn adapter(index: usize) -> Result<Self> {
        Ok(Self::new(Executor::Gpu(Box::new(Gpu::open(index)?))))
    }
}
