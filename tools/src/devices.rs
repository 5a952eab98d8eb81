//! `adamant devices`: what there is to compute on, and whether it computes right.

use std::collections::BTreeMap;

use adamant::{AdapterInfo, Check, Device, DeviceChoice, adapters, self_test};
use anyhow::{Result, bail};
use serde::Serialize;

use crate::Outcome;
use crate::args::DevicesArgs;
use crate::measure::measured_kernels;
use crate::output::{self, wrap};
use crate::progress::Console;

/// Mesa asks a Wayland compositor which GPU it would prefer, and complains on standard error where
/// there is none: on a server, or in a container. Adamant orders the adapters itself.
pub fn quiet_drivers() {
    let desktop = ["WAYLAND_DISPLAY", "XDG_RUNTIME_DIR"].iter().any(|name| std::env::var_os(name).is_some());
    if !desktop {
        // SAFETY: the program has only this thread so far.
        unsafe { std::env::set_var("NODEVICE_SELECT", "1") };
    }
}

#[derive(Serialize)]
struct Devices {
    schema: u32,
    /// What `--device auto` opens.
    auto: String,
    cpu: String,
    adapters: Vec<Adapter>,
}

#[derive(Serialize)]
struct Adapter {
    index: usize,
    name: String,
    backend: String,
    driver: String,
    kind: String,
    software: bool,
    max_binding_bytes: u64,
    storage_buffers: u32,
    workgroup_threads: u32,
    /// How often each kernel was measured to be the fastest for an operation, by name; empty where nothing
    /// has been measured.
    kernels: BTreeMap<String, usize>,
    tests: Vec<Test>,
    /// Why the tests could not run.
    error: Option<String>,
}

/// A comparison with the CPU executor.
#[derive(Serialize)]
struct Test {
    name: &'static str,
    /// Largest difference, as a part of the largest value; absent when a result was not a number.
    difference: Option<f32>,
    ok: bool,
}

pub fn run(args: &DevicesArgs, console: &Console) -> Result<Outcome> {
    let mut found = Vec::new();
    for (index, info) in adapters().into_iter().enumerate() {
        console.detail(&format!("testing {}", info.name));
        found.push(examine(index, info));
    }
    let devices = Devices {
        schema: 1,
        auto: Device::open(&DeviceChoice::Auto)?.name(),
        cpu: Device::cpu().name(),
        adapters: found,
    };
    output::result(&args.json, &devices, &text(&devices))?;
    let failed: Vec<&str> = devices.adapters.iter().filter(|a| !a.ok()).map(|a| a.name.as_str()).collect();
    if !failed.is_empty() {
        bail!("the self-test failed on {}: do not use it; try a newer driver", failed.join(" and "));
    }
    Ok(Outcome::Done)
}

fn examine(index: usize, info: AdapterInfo) -> Adapter {
    let open = || Device::open(&DeviceChoice::Named(index.to_string()));
    let kernels = open().map(|mut device| {
        device.tune(measured_kernels().as_deref(), Box::new(|_| ()));
        device.choices().counts().into_iter().map(|(kernel, count)| (kernel.to_owned(), count)).collect()
    });
    let result = open().and_then(self_test);
    let error = result.as_ref().err().map(ToString::to_string);
    let tests = result.unwrap_or_default().iter().map(Test::from).collect();
    let AdapterInfo { name, backend, driver, kind, software, limits } = info;
    Adapter {
        index,
        name,
        backend,
        driver,
        kind,
        software,
        max_binding_bytes: limits.storage_binding,
        storage_buffers: limits.storage_buffers,
        workgroup_threads: limits.workgroup_threads,
        kernels: kernels.unwrap_or_default(),
        tests,
        error,
    }
}

impl From<&Check> for Test {
    fn from(check: &Check) -> Self {
        let difference = Some(check.difference).filter(|d| d.is_finite());
        Self { name: check.name, difference, ok: check.passed() }
    }
}

impl Adapter {
    fn ok(&self) -> bool {
        self.error.is_none() && self.tests.iter().all(|t| t.ok)
    }
}

fn text(devices: &Devices) -> String {
    let mut text = String::new();
    for a in &devices.adapters {
        let kind = if a.software { "software" } else { &a.kind };
        text += &format!("{}: {}\n", a.index, a.name);
        text += &format!("   {}, {}, {kind}\n", a.backend, a.driver);
        text += &format!(
            "   buffers up to {}, {} of them a kernel, {} threads a workgroup\n",
            output::bytes(a.max_binding_bytes),
            a.storage_buffers,
            a.workgroup_threads
        );
        if !a.kernels.is_empty() {
            let counts = a.kernels.iter().map(|(kernel, count)| format!("{kernel} {count}"));
            let total: usize = a.kernels.values().sum();
            let counts = counts.collect::<Vec<_>>().join(", ");
            text += &format!("   fastest kernels, as measured for {total} operations: {counts}\n");
        }
        match &a.error {
            Some(error) => text += &format!("   self-test FAILED: {error}\n"),
            None => text += "   self-test, largest difference from the CPU executor:\n",
        }
        for test in &a.tests {
            let difference = test.difference.map_or("not a number".to_owned(), |d| format!("{d:.1e}"));
            let verdict = if test.ok { "ok" } else { "FAILED" };
            text += &format!("      {:<15} {difference:<9} {verdict}\n", test.name);
        }
        text.push('\n');
    }
    if devices.adapters.is_empty() {
        text += "No Vulkan, Metal or DX12 adapter was found.\n\n";
    }
    text += &format!("{}: the portable executor\n\n--device auto opens {}\n", devices.cpu, devices.auto);
    wrap(&text, 2) + "\n"
}
