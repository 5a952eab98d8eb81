//! Which kernels a device runs, where an operation has several: what was measured, kept in a file.

use std::collections::BTreeMap;
use std::path::Path;

use crate::error::{Error, Result};
use crate::ops::{CompactConv2d, FusedConv2d, Kernel, Launch, Op};
use crate::package::write_atomically;
use crate::shape::Shape;

/// The first line of a file of choices; the second names the device.
const FORMAT: &str = "adamant kernels 1";

/// The kernels to take, for the operations that have been measured.
#[derive(Clone, Default, Debug)]
pub struct Choices {
    /// Taken wherever it applies.
    always: Option<String>,
    /// By operation and shapes, see [`key`].
    measured: BTreeMap<String, String>,
}

impl Choices {
    /// This kernel wherever it applies, else the first.
    pub fn always(kernel: &str) -> Self {
        Self { always: Some(kernel.to_owned()), measured: BTreeMap::new() }
    }

    /// The position of the one to take of `launches`, which are the ways to compute `op`.
    pub(crate) fn pick(&self, op: &Op, inputs: &[Shape], launches: &[Launch]) -> usize {
        if launches.len() < 2 {
            return 0;
        }
        let wanted = self.always.as_deref().or_else(|| self.measured(op, inputs, launches));
        let is_it = |launch: &Launch| wanted == Some(kernel(launch).name);
        launches.iter().position(is_it).unwrap_or(0)
    }

    /// The kernel that was measured to be the fastest.
    pub(crate) fn measured(&self, op: &Op, inputs: &[Shape], launches: &[Launch]) -> Option<&str> {
        if self.measured.is_empty() {
            return None;
        }
        self.measured.get(&key(op, inputs, launches)).map(String::as_str)
    }

    #[cfg(any(feature = "gpu", test))]
    pub(crate) fn insert(&mut self, key: String, kernel: &Kernel) {
        self.measured.insert(key, kernel.name.to_owned());
    }

    /// How often each kernel was found to be the fastest, by name.
    pub fn counts(&self) -> BTreeMap<&str, usize> {
        let mut counts = BTreeMap::new();
        for kernel in self.measured.values() {
            *counts.entry(kernel.as_str()).or_default() += 1;
        }
        counts
    }

    /// The choices that `path` holds for this device; none where it holds none, or those of another.
    pub fn load(path: &Path, device: &str) -> Self {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let mut lines = text.lines();
        if lines.next() != Some(FORMAT) || lines.next() != Some(device) {
            return Self::default();
        }
        let pairs = lines.filter_map(|line| line.split_once('\t'));
        let measured = pairs.map(|(kernel, key)| (key.to_owned(), kernel.to_owned())).collect();
        Self { always: None, measured }
    }

    /// Replaces the file, at once or not at all.
    pub fn save(&self, path: &Path, device: &str) -> Result<()> {
        let mut text = format!("{FORMAT}\n{device}\n");
        for (key, kernel) in &self.measured {
            text += &format!("{kernel}\t{key}\n");
        }
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
        }
        // Two programs may measure at a time: the last one to finish wins.
        write_atomically(path, text.as_bytes())
    }
}

/// The kernel that a launch is known by: its first.
pub(crate) fn kernel(launch: &Launch) -> &Kernel {
    &launch.dispatches[0].kernel
}

/// What stands for an operation when its kernels are measured. A convolution takes as long with what follows
/// it as without, and what is best for a batch is best for one that is a little smaller.
pub(crate) fn representative(op: &Op, inputs: &[Shape]) -> (Op, Vec<Shape>) {
    let (op, inputs) = match op {
        Op::FusedConv2d(fused) => (Op::Conv2d(fused.conv), &inputs[..2]),
        Op::Conv2d(conv) => (Op::Conv2d(*conv), &inputs[..2]),
        Op::CompactConv2d(compact) => {
            let conv = FusedConv2d::plain(compact.conv.conv, false);
            (Op::CompactConv2d(CompactConv2d { conv, ..*compact }), &inputs[..2])
        }
        other => (other.clone(), inputs),
    };
    let inputs = with_batch(&op, inputs, inputs[0].batch().next_power_of_two());
    (op, inputs)
}

/// The inputs of an operation with several kernels, for another batch.
pub(crate) fn with_batch(op: &Op, inputs: &[Shape], batch: usize) -> Vec<Shape> {
    let is_weight = |i: usize| i == 1 && !matches!(op, Op::Conv2dGradWeight(_));
    let resize = |(i, s): (usize, &Shape)| if is_weight(i) { *s } else { s.with_batch(batch) };
    inputs.iter().enumerate().map(resize).collect()
}

/// The operation, its shapes, and the text of all kernels that were compared: when one of them changes, or
/// there is a new one, they are measured again.
pub(crate) fn key(op: &Op, inputs: &[Shape], launches: &[Launch]) -> String {
    let mut kernels: Vec<&Kernel> = launches.iter().map(kernel).collect();
    kernels.sort_by_key(|k| k.name);
    let mut hasher = blake3::Hasher::new();
    for kernel in kernels {
        hasher.update(kernel.name.as_bytes());
        for source in kernel.sources {
            hasher.update(source.as_bytes());
        }
    }
    let (op, inputs) = representative(op, inputs);
    format!("{op:?} {inputs:?} {}", &hasher.finalize().to_hex()[..8])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::{Activation, Conv2d};
    use crate::plan::Limits;

    const CONV: Conv2d = Conv2d { pads: [1; 4], ..Conv2d::LINEAR };
    const SHAPES: [Shape; 2] = [Shape([8, 32, 32, 16]), Shape([3, 3, 16, 64])];

    fn launches(op: &Op, inputs: &[Shape]) -> Vec<Launch> {
        op.launches(inputs, &[Shape([8, 32, 32, 64])], &Limits::WEBGPU)
    }

    #[test]
    fn a_measured_choice_is_kept_for_its_device() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("not there yet/kernels.txt");
        let op = Op::Conv2d(CONV);
        let ways = launches(&op, &SHAPES);
        let last = ways.len() - 1;
        assert!(last >= 2, "there is a choice");
        assert_eq!(Choices::load(&path, "a").pick(&op, &SHAPES, &ways), 0);
        let mut choices = Choices::default();
        choices.insert(key(&op, &SHAPES, &ways), kernel(&ways[last]));
        choices.save(&path, "a").expect("it is saved");
        assert_eq!(Choices::load(&path, "a").pick(&op, &SHAPES, &ways), last);
        assert_eq!(Choices::load(&path, "b").pick(&op, &SHAPES, &ways), 0, "another device");
        let with = |batch: usize| [SHAPES[0].with_batch(batch), SHAPES[1]];
        assert_eq!(Choices::load(&path, "a").pick(&op, &with(5), &ways), last, "a batch that is nearly full");
        assert_eq!(Choices::load(&path, "a").pick(&op, &with(4), &ways), 0, "half a batch");
        assert_eq!(Choices::load(&path, "a").counts(), BTreeMap::from([(kernel(&ways[last]).name, 1)]));
        // A kernel that is gone, or has another text, does not count.
        assert_eq!(Choices::load(&path, "a").pick(&op, &SHAPES, &ways[..last]), 0);
        std::fs::write(&path, "adamant kernels 1\na\nno tab here\n").expect("written");
        assert_eq!(Choices::load(&path, "a").counts(), BTreeMap::new());
    }

    #[test]
    fn what_follows_a_convolution_does_not_matter() {
        let plain = Op::Conv2d(CONV);
        let fused = Op::FusedConv2d(FusedConv2d {
            conv: CONV,
            bias: true,
            residual: false,
            activation: Activation::Relu { max: 6.0 },
        });
        let inputs = [SHAPES[0], SHAPES[1], Shape::vector(64)];
        let (a, b) = (launches(&plain, &SHAPES), launches(&fused, &inputs));
        assert_eq!(key(&plain, &SHAPES, &a), key(&fused, &inputs, &b));
    }
}
