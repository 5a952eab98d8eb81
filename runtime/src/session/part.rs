//! A part of the loaded batch in the place of all of it: passes through the network cost what they cost for those
//! images alone.

use super::Session;
use crate::error::Result;
use crate::graph::Variable;

/// A batch of which only a part is loaded.
pub(crate) struct Whole {
    count: usize,
    /// Where the images of the part belong.
    positions: Vec<usize>,
    /// What belongs to the images of the batch, as it was; the adversarial images first.
    kept: Vec<(Variable, Vec<f32>)>,
}

/// The images to go on with where only those that are `wanted` are needed: they come first, and others fill the last
/// of the quarters of a batch of `of` images, since each size of a batch has programs of its own.
pub(crate) fn part(wanted: &[bool], of: usize) -> Vec<usize> {
    let needed = wanted.iter().filter(|&&w| w).count();
    let (first, rest): (Vec<usize>, Vec<usize>) = (0..wanted.len()).partition(|&i| wanted[i]);
    first.into_iter().chain(rest).take(needed.next_multiple_of(of.div_ceil(4))).collect()
}

impl Session {
    /// Makes the images at `positions` of the first `count` the first ones, as if they alone had been loaded: their
    /// adversarial images, labels, indices, radii and step lengths with them, and their rows of `more`.
    pub(crate) fn narrow(&mut self, count: usize, positions: Vec<usize>, more: &[Variable]) -> Result<Whole> {
        let b = self.buffers;
        let own = [b.adversarial, b.images, b.labels, b.indices, b.radius, b.step];
        let mut kept = Vec::with_capacity(own.len() + more.len());
        for &variable in own.iter().chain(more) {
            let row = variable.len() / self.capacity;
            let mut values = self.device.read(variable)?;
            values.truncate(count * row);
            let part: Vec<f32> = positions.iter().flat_map(|&i| &values[i * row..][..row]).copied().collect();
            self.device.write(variable, &part);
            kept.push((variable, values));
        }
        Ok(Whole { count, positions, kept })
    }

    /// Loads the batch again, with the part's adversarial images in their places; returns how many images it has.
    pub(crate) fn widen(&mut self, whole: Whole) -> Result<usize> {
        let Whole { count, positions, mut kept } = whole;
        let (adversarial, values) = &mut kept[0];
        let row = adversarial.len() / self.capacity;
        let found = self.device.read(*adversarial)?;
        for (&i, found) in positions.iter().zip(found.chunks_exact(row)) {
            values[i * row..][..row].copy_from_slice(found);
        }
        for (variable, values) in &kept {
            self.device.write(*variable, values);
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_some_quarters_of_the_batch() {
        let wanted = |of: usize, wanted: &[usize]| -> Vec<usize> {
            part(&(0..of).map(|i| wanted.contains(&i)).collect::<Vec<_>>(), of)
        };
        assert!(wanted(8, &[]).is_empty());
        assert_eq!(wanted(8, &[5]), [5, 0]);
        assert_eq!(wanted(8, &[1, 6]), [1, 6]);
        assert_eq!(wanted(8, &[1, 3, 6]), [1, 3, 6, 0]);
        assert_eq!(wanted(5, &[4, 1, 2]), [1, 2, 4, 0]);
        assert_eq!(wanted(5, &[0, 1, 2, 3, 4]), [0, 1, 2, 3, 4]);
        assert_eq!(wanted(1, &[0]), [0]);
        // Of what is a part already.
        assert_eq!(part(&[false, true, false, false], 8), [1, 0]);
    }
}
