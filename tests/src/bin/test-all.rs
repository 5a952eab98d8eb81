//! The project's test command: makes sure that the WGSL kernels can run, then runs every test.
//!
//! `cargo run --release --bin test-all [-- arguments for cargo test]`

use std::process::{Command, ExitCode};

const PACKAGE: &str = "mesa-vulkan-drivers";

fn main() -> ExitCode {
    if adamant::adapters().is_empty() && !install() {
        eprintln!(
            "error: no Vulkan, Metal or DX12 adapter, so the WGSL kernels cannot run, and tests that did not run \
             do not count.\nInstall a driver; without a GPU, Mesa's software renderer will do:\n\n    \
             sudo apt-get install {PACKAGE}\n"
        );
        return ExitCode::from(2);
    }
    for adapter in adamant::adapters() {
        eprintln!("adapter: {} ({}, {})", adapter.name, adapter.backend, adapter.driver);
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["test", "--release", "--workspace"]).args(std::env::args_os().skip(1));
    // Without a desktop session, Mesa's device selection complains once for each opened adapter.
    if std::env::var_os("XDG_RUNTIME_DIR").is_none() {
        command.env("NODEVICE_SELECT", "1");
    }
    match command.status() {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("error: cargo test did not start: {e}");
            ExitCode::from(2)
        }
    }
}

/// Installs Mesa's software renderer where this user may.
fn install() -> bool {
    let run = |program: &str, arguments: &[&str]| {
        Command::new(program)
            .args(arguments)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .status()
            .is_ok_and(|s| s.success())
    };
    let root = Command::new("id").arg("-u").output().is_ok_and(|o| o.stdout.trim_ascii() == b"0");
    if !root {
        return false;
    }
    eprintln!("no adapter found; installing {PACKAGE}");
    run("apt-get", &["update", "-qq"])
        && run("apt-get", &["install", "-y", "-qq", "--no-install-recommends", PACKAGE])
        && !adamant::adapters().is_empty()
}
