//! What tests of several files attack.

use crate::architectures::Architecture;
use crate::data::Batch;
use crate::device::Device;
use crate::session::Session;

/// An untrained network for small images of four classes, and eight of them, which it has loaded.
pub(super) fn eight_images() -> (Session, Batch) {
    let model = Architecture::build("resnet8", [3, 8, 8], 4, 0).unwrap();
    let mut session = Session::new(Device::cpu(), &model, 8).unwrap();
    let batch = Batch {
        images: (0..8 * 192).map(|i| (i * 37 % 101) as f32 / 100.0).collect(),
        labels: vec![0, 1, 2, 3, 0, 1, 2, 3],
        indices: vec![40, 7, 9, 3, 21, 5, 6, 30],
    };
    session.load(&batch.images, &batch.labels, &batch.indices).unwrap();
    (session, batch)
}
