//! Common corruptions: the 15 of CIFAR-10-C and ImageNet-C and their 4 for validation, at five severities
//! (Hendrycks and Dietterich, "Benchmarking neural network robustness to common corruptions and
//! perturbations", 2019; parameters and order of operations are those of the authors' scripts).
//!
//! What is made here is "C-like": the same distortions from other random numbers, and where the authors
//! used a codec, pictures of frost or an image library, from another one, as [`Corruption::differs`]
//! says. Numbers to publish come from the published images.

mod blur;
mod digital;
mod noise;
mod picture;
mod weather;

use picture::{Draws, Picture};

/// What kind of trouble it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Group {
    Noise,
    Blur,
    Weather,
    Digital,
}

/// The severities, from mild to strong.
pub const SEVERITIES: usize = 5;

/// The parameters of each severity.
type Table = [&'static [f64]; SEVERITIES];

/// One way in which pictures go bad.
pub struct Corruption {
    /// As the published files are called.
    pub name: &'static str,
    pub group: Group,
    /// Not one of the 15 of the benchmark.
    pub extra: bool,
    /// What is other than in the published images besides the random numbers.
    pub differs: Option<&'static str>,
    /// Of CIFAR-10-C: for images up to 64 pixels.
    cifar: Table,
    /// Of ImageNet-C.
    imagenet: Table,
    /// Distorts a picture in [0, 1]; the result need not be.
    apply: fn(&mut Picture, &[f64], &mut Draws),
}

/// All of them, in the order of the benchmark's tables; the extra ones come last.
pub static CORRUPTIONS: [Corruption; 19] = [
    noise::GAUSSIAN,
    noise::SHOT,
    noise::IMPULSE,
    blur::DEFOCUS,
    blur::GLASS,
    blur::MOTION,
    blur::ZOOM,
    weather::SNOW,
    weather::FROST,
    weather::FOG,
    weather::BRIGHTNESS,
    digital::CONTRAST,
    digital::ELASTIC,
    digital::PIXELATE,
    digital::JPEG,
    noise::SPECKLE,
    blur::GAUSSIAN,
    weather::SPATTER,
    digital::SATURATE,
];

/// The largest side for which the parameters of CIFAR-10-C are meant.
const SMALL: usize = 64;

impl Corruption {
    /// The parameters at `severity`, from 1, for images of this height and width.
    ///
    /// # Panics
    /// When there is no such severity.
    pub fn parameters(&self, severity: usize, [height, width]: [usize; 2]) -> &'static [f64] {
        let table = if height.max(width) <= SMALL { &self.cifar } else { &self.imagenet };
        table[severity - 1]
    }

    /// Distorts a planar image of bytes. What comes out depends on the seed, the image's index, the
    /// corruption and the severity alone.
    ///
    /// # Panics
    /// When there is no such severity, or the image does not have that shape.
    pub fn apply(&self, image: &[u8], shape: [usize; 3], severity: usize, seed: u64, index: u32) -> Vec<u8> {
        let [_, height, width] = shape;
        let mut picture = Picture::from_bytes(image, shape);
        let number = CORRUPTIONS.iter().position(|c| c.name == self.name).unwrap_or(0);
        let mut draws = Draws::new(seed, number as u32, severity as u32, index);
        (self.apply)(&mut picture, self.parameters(severity, [height, width]), &mut draws);
        picture.to_bytes()
    }
}

#[cfg(test)]
mod tests;
