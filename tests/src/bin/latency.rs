//! How long one picture takes, as an application calls it: `latency FOLDER [--runs N]`.
//!
//! Writes packages of every precision and what they export to FOLDER, and a line of JSON for each: the median of
//! `Classifier::classify` on both executors, in milliseconds, after a warm-up, and the memory that the model then takes
//! there. `tests/peers/latency.py` puts ONNX
//! Runtime beside it.

use std::path::Path;
use std::time::Instant;

use adamant::package::{Package, Precision, Provenance};
use adamant::{Architecture, Classifier, Device, DeviceChoice, Picture, to_onnx_as};
use serde_json::json;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let folder = Path::new(arguments.first().ok_or("usage: latency FOLDER [--runs N]")?);
    let at = arguments.iter().position(|a| a == "--runs");
    let runs: usize = at.and_then(|at| arguments.get(at + 1)).map_or(Ok(50), |n| n.parse())?;
    for arch in ["resnet20", "resnet18"] {
        let model = Architecture::build(arch, [3, 32, 32], 10, 0)?;
        for precision in [Precision::F32, Precision::F16, Precision::Int8] {
            let package =
                Package { precision, ..Package::new(model.folded(), Provenance::default()) }.to_bytes("x")?;
            let package = Package::from_bytes(&package, "x")?;
            let name = format!("{arch}-{}", precision.name());
            let path = folder.join(format!("{name}.adamant"));
            package.write(&path)?;
            std::fs::write(folder.join(format!("{name}.onnx")), to_onnx_as(&package.model, precision)?)?;
            let size = std::fs::metadata(&path)?.len();
            let (cpu, cpu_bytes) = median(Classifier::new(package.clone(), Device::cpu(), 1)?, runs)?;
            let device = Device::open(&DeviceChoice::Gpu)?;
            let adapter = device.name();
            let (gpu, gpu_bytes) = median(Classifier::new(package, device, 1)?, runs)?;
            println!(
                "{}",
                json!({
                    "name": name, "bytes": size, "cpu_ms": cpu, "cpu_bytes": cpu_bytes, "gpu_ms": gpu,
                    "gpu_bytes": gpu_bytes, "adapter": adapter
                })
            );
        }
    }
    Ok(())
}

/// Milliseconds of one call, and bytes of memory.
fn median(classifier: Classifier, runs: usize) -> adamant::Result<(f64, u64)> {
    let [channels, height, width] = classifier.input();
    let pixels = (0..channels * height * width).map(|i| (i % 256) as f32 / 255.0).collect();
    let picture = Picture::new([channels, height, width], pixels)?;
    classifier.warm_up()?;
    let mut times = Vec::with_capacity(runs);
    for _ in 0..runs.max(1) {
        let start = Instant::now();
        classifier.classify(&picture, 5)?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    Ok((times[times.len() / 2], classifier.memory()))
}
