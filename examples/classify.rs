//! Loads a model from ONNX and classifies five digits.

use adamant::{
    Dataset, Device, DeviceChoice, Loader, LoaderOptions, OpenOptions, Session, Split, import, probabilities,
};

fn main() -> anyhow::Result<()> {
    let model = import("examples/data/digits_resnet8.onnx".as_ref())?;
    let digits = Dataset::open("mnist:examples/data/digits", Split::Test, &OpenOptions::default())?.limit(5);

    // A hardware GPU if there is one, else the CPU executor.
    let device = Device::open(&DeviceChoice::Auto)?;
    println!("on {}", device.name());

    let mut session = Session::new(device, &model, digits.len())?;
    for batch in Loader::new(&digits, LoaderOptions::default())? {
        let probabilities = probabilities(&mut session, &batch.images, batch.labels.len())?;
        for (row, label) in probabilities.chunks_exact(session.classes()).zip(&batch.labels) {
            let (class, probability) =
                row.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).expect("a model has classes");
            println!("a {label}, read as {class} with probability {probability:.3}");
        }
    }
    Ok(())
}
