//! ATTA, adversarial training with transferable adversarial examples: Zheng et al., 2020. What was found for
//! an image in one epoch is where its attack starts in the next; a few steps then do the work of many.
//!
//! Perturbations are kept in the coordinates of the whole, padded image: a crop sees the part of it that it
//! shows, mirrored as the image is, and puts it back there (their section 4.2).

use super::adversary::Adversary;
use super::radii::Moment;
use crate::attacks::AttackSpec;
use crate::data::{Augment, Batch, Dataset, Placement};
use crate::error::{Error, Result};
use crate::random::{Purpose, Stream};
use crate::session::Session;

pub(super) struct Atta {
    augment: Option<Augment>,
    /// Channels, height and width of an image, and the pixels around it that a crop may show.
    shape: [usize; 3],
    padding: usize,
    /// Data set index of the first image.
    offset: usize,
    /// Epochs after which all start anew.
    reset: u32,
    /// The perturbation of each padded image.
    moves: Vec<f32>,
}

/// Deviation of the noise that an image starts anew from.
const NOISE: f32 = 1e-3;

impl Atta {
    pub fn new(reset: u32, augment: Option<Augment>, data: &Dataset) -> Result<Self> {
        let padding = augment.map_or(0, |augment| augment.crop_padding);
        let [channels, height, width] = data.shape;
        let padded = channels * (height + 2 * padding) * (width + 2 * padding);
        let len = padded.checked_mul(data.len()).filter(|len| *len < isize::MAX as usize / 4);
        let mut moves = Vec::new();
        let fits = len.is_some_and(|len| moves.try_reserve_exact(len).is_ok());
        if !fits {
            return Err(Error::Limit(format!(
                "attack.kind = atta keeps {padded} numbers for each of {} images: more than there is memory",
                data.len()
            )));
        }
        moves.resize(len.unwrap_or(0), 0.0);
        Ok(Self { augment, shape: data.shape, padding, offset: data.offset(), reset, moves })
    }

    /// Whether images start anew in this epoch: the first, and each whose number, from 1, is a multiple of
    /// `reset`, as in the authors' code.
    fn starts_anew(&self, epoch: u32) -> bool {
        epoch == 0 || (epoch + 1).is_multiple_of(self.reset)
    }

    /// Adversarial images := those that the attack finds from where it ended the last time.
    pub fn perturb(
        &mut self,
        session: &mut Session,
        adversary: &Adversary,
        spec: &AttackSpec,
        batch: &Batch,
        at: Moment,
    ) -> Result<()> {
        let count = batch.len();
        let crops = Stream::new(at.seed, Purpose::Augment, at.epoch, 0);
        let noise = Stream::new(at.seed, Purpose::TrainingAttackStart, at.epoch, 0);
        let mut images = batch.images.clone();
        let len = images.len() / count;
        let places: Vec<Place> = batch.indices.iter().map(|&index| self.place(&crops, index)).collect();
        for ((image, place), &index) in images.chunks_exact_mut(len).zip(&places).zip(&batch.indices) {
            let moves = self.moves_of(index);
            if self.starts_anew(at.epoch) {
                let moves = &mut self.moves[moves.clone()];
                for (i, value) in (0..).zip(moves.iter_mut()) {
                    *value = NOISE * noise.normal(index, i);
                }
            }
            let moves = &self.moves[moves];
            place.each(self.shape, self.padding, |of_image, of_moves| {
                image[of_image] = (image[of_image] + moves[of_moves]).clamp(0.0, 1.0);
            });
        }
        let adversarial = session.buffers().adversarial;
        session.device().write(adversarial, &images);
        adversary.remember(session, count)?;
        session.set_ball(spec.ball.eps, spec.step);
        for _ in 0..spec.steps {
            adversary.follow(session, count)?;
            session.step(count, spec.ball.norm)?;
        }
        let found = session.read_adversarial(count)?;
        let images = found.chunks_exact(len).zip(batch.images.chunks_exact(len));
        for (((found, clean), place), &index) in images.zip(&places).zip(&batch.indices) {
            let range = self.moves_of(index);
            let moves = &mut self.moves[range];
            place.each(self.shape, self.padding, |of_image, of_moves| {
                moves[of_moves] = found[of_image] - clean[of_image];
            });
        }
        Ok(())
    }

    fn place(&self, crops: &Stream, index: u32) -> Place {
        Place(self.augment.map_or(Placement::default(), |augment| augment.place(crops, index)))
    }

    fn moves_of(&self, index: u32) -> std::ops::Range<usize> {
        let [channels, height, width] = self.shape;
        let len = channels * (height + 2 * self.padding) * (width + 2 * self.padding);
        let start = (index as usize - self.offset) * len;
        start..start + len
    }

    pub fn read(&self) -> (String, Vec<f32>) {
        (NAME.into(), self.moves.clone())
    }

    pub fn restore(&mut self, tensors: &[(String, Vec<f32>)]) -> Result<()> {
        let (_, values) = tensors
            .iter()
            .find(|(n, v)| n == NAME && v.len() == self.moves.len())
            .ok_or_else(|| Error::Config(format!("the checkpoint has no '{NAME}' of such images")))?;
        self.moves.clone_from(values);
        Ok(())
    }
}

const NAME: &str = "atta.moves";

/// Where a crop lies in its padded image.
struct Place(Placement);

impl Place {
    /// Calls `f(element of the crop, element of the padded image)` for each element of the crop.
    fn each(&self, [channels, height, width]: [usize; 3], padding: usize, mut f: impl FnMut(usize, usize)) {
        let Placement { down, right, mirrored } = self.0;
        let [rows, columns] = [height + 2 * padding, width + 2 * padding];
        let [top, left] = [down, right].map(|shift| padding.saturating_add_signed(shift));
        for c in 0..channels {
            for y in 0..height {
                for x in 0..width {
                    let from = if mirrored { width - 1 - x } else { x };
                    f((c * height + y) * width + x, (c * rows + y + top) * columns + from + left);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A crop of the padded image through `Place` is what augmentation shows.
    #[test]
    fn places_are_those_of_augmentation() {
        let shape = [2, 4, 5];
        let padding = 2;
        let augment = Augment { crop_padding: padding, flip: true };
        let image: Vec<f32> = (1..=40_u8).map(f32::from).collect();
        let (rows, columns) = (8, 9);
        let mut padded = vec![0.0; 2 * rows * columns];
        for (i, value) in image.iter().enumerate() {
            let (c, y, x) = (i / 20, i / 5 % 4, i % 5);
            padded[(c * rows + y + padding) * columns + x + padding] = *value;
        }
        let stream = Stream::new(7, Purpose::Augment, 0, 0);
        for index in 0..100 {
            let placement = augment.place(&stream, index);
            let mut expected = vec![0.0; 40];
            placement.apply(shape, &image, &mut expected);
            let mut found = vec![0.0; 40];
            Place(placement).each(shape, padding, |i, at| found[i] = padded[at]);
            assert_eq!(found, expected, "{placement:?}");
        }
    }

    #[test]
    fn images_start_anew_as_in_the_authors_code() {
        let data = Dataset::from_pixels("x", [1, 2, 2], vec!["a".into()], vec![0; 4], vec![0]).unwrap();
        let atta = Atta::new(10, None, &data).unwrap();
        let anew: Vec<u32> = (0..38).filter(|&e| atta.starts_anew(e)).map(|e| e + 1).collect();
        assert_eq!(anew, [1, 10, 20, 30]);
    }
}
