//! Random crop and horizontal flip, the augmentation of CIFAR training.

use crate::error::{Error, Result};
use crate::random::Stream;

/// PyTorch's `RandomCrop(size, padding)` and `RandomHorizontalFlip()`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Augment {
    /// Zero pixels added on each side before an image of the original size is cut out; at most the
    /// image's shorter side. 4 is usual for CIFAR.
    pub crop_padding: usize,
    /// Whether half of the images are mirrored left to right.
    pub flip: bool,
}

/// Where one image goes: output pixel (y, x) is input pixel (y + down, x + right), or 0 where there
/// is none, and then the image is mirrored if it is to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Placement {
    pub down: isize,
    pub right: isize,
    pub mirrored: bool,
}

impl Augment {
    pub(super) fn check(&self, [_, height, width]: [usize; 3]) -> Result<()> {
        if self.crop_padding <= height.min(width) {
            return Ok(());
        }
        let padding = self.crop_padding;
        Err(Error::Config(format!("crop padding {padding} is larger than a {height}x{width} image")))
    }

    /// A pure function of the stream and of the image's position in its data set: neither the
    /// order nor the size of batches matters.
    pub(crate) fn place(&self, stream: &Stream, index: u32) -> Placement {
        let offsets = 2 * self.crop_padding as u32 + 1;
        let shift = |position| stream.below(index, position, offsets) as isize - self.crop_padding as isize;
        Placement { down: shift(0), right: shift(1), mirrored: self.flip && stream.below(index, 2, 2) == 1 }
    }
}

impl Placement {
    /// Writes the planar image `from` of `shape` (channels, height, width) to `to`.
    pub fn apply(&self, [_, height, width]: [usize; 3], from: &[f32], to: &mut [f32]) {
        let [top, left] = [self.down, self.right];
        // The columns of the output that the input covers.
        let first = left.min(0).unsigned_abs().min(width);
        let count = width - left.unsigned_abs().min(width);
        for (row, out) in to.chunks_exact_mut(width).enumerate() {
            let (plane, y) = (row / height, (row % height) as isize + top);
            out.fill(0.0);
            if (0..height as isize).contains(&y) && count > 0 {
                let start = (plane * height + y as usize) * width + left.max(0) as usize;
                out[first..first + count].copy_from_slice(&from[start..start + count]);
            }
            if self.mirrored {
                out.reverse();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::random::Purpose;

    const SHAPE: [usize; 3] = [2, 3, 4];

    /// 1, 2, 3 ...: no pixel is 0, which only padding is.
    fn counting() -> Vec<f32> {
        (1..=24_u8).map(f32::from).collect()
    }

    fn apply(placement: Placement, image: &[f32]) -> Vec<f32> {
        let mut out = vec![-1.0; image.len()];
        placement.apply(SHAPE, image, &mut out);
        out
    }

    #[test]
    fn no_padding_and_no_flip_is_the_identity() {
        let stream = Stream::new(3, Purpose::Augment, 1, 0);
        for index in 0..50 {
            let placement = Augment::default().place(&stream, index);
            assert_eq!(apply(placement, &counting()), counting());
        }
    }

    #[test]
    fn two_flips_are_the_identity() {
        let flip = Placement { down: 0, right: 0, mirrored: true };
        let once = apply(flip, &counting());
        assert_eq!(once[..4], [4.0, 3.0, 2.0, 1.0]);
        assert_eq!(apply(flip, &once), counting());
    }

    /// Against the definition, pixel by pixel, beyond the edges too.
    #[test]
    fn every_placement_is_as_defined() {
        let [channels, height, width] = SHAPE.map(|d| d as isize);
        let image = counting();
        for (down, right, mirrored) in
            (-4..=4).flat_map(|d| (-5..=5).flat_map(move |r| [(d, r, false), (d, r, true)]))
        {
            let out = apply(Placement { down, right, mirrored }, &image);
            for (c, y, x) in
                (0..channels).flat_map(|c| (0..height).flat_map(move |y| (0..width).map(move |x| (c, y, x))))
            {
                let (from_y, from_x) = (y + down, x + right);
                let inside = (0..height).contains(&from_y) && (0..width).contains(&from_x);
                let from = ((c * height + from_y) * width + from_x) as usize;
                let expected = if inside { image[from] } else { 0.0 };
                let x = if mirrored { width - 1 - x } else { x };
                let found = out[((c * height + y) * width + x) as usize];
                assert_eq!(found, expected, "{down} {right} {mirrored}");
            }
        }
    }

    #[test]
    fn every_placement_occurs() {
        let stream = Stream::new(0, Purpose::Augment, 0, 0);
        let augment = Augment { crop_padding: 2, flip: true };
        let seen: BTreeSet<_> = (0..2000)
            .map(|index| augment.place(&stream, index))
            .map(|p| (p.down, p.right, p.mirrored))
            .collect();
        assert_eq!(seen.len(), 5 * 5 * 2);
        assert!(seen.iter().all(|(d, r, _)| d.abs() <= 2 && r.abs() <= 2));
    }

    #[test]
    fn padding_is_at_most_the_shorter_side() {
        let padding = |crop_padding| Augment { crop_padding, flip: false }.check([1, 28, 32]);
        assert!(padding(28).is_ok());
        assert!(padding(29).unwrap_err().to_string().contains("crop padding 29"));
    }
}
