//! Random numbers that are a pure function of what they are for.
//!
//! Threefry-2x32 with 20 rounds (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3",
//! 2011): a keyed bijection of 64 bits made of additions, rotations and xors, so that Rust and WGSL
//! (`shaders/shared/random.wgsl`) compute the same bits.

/// What a stream of random numbers is for. Distinct purposes never share numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Purpose {
    Initialize = 1,
    Shuffle = 2,
    Augment = 3,
    AttackStart = 4,
    TrainingAttackStart = 5,
    Probe = 6,
    Mixup = 7,
    Corruption = 8,
    Tuning = 9,
}

/// A stream of random numbers: the key of a Threefry whose counter is (image index, position).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stream {
    pub key: [u32; 2],
}

impl Stream {
    /// `major` and `minor` tell streams of one purpose apart: epoch and restart, say.
    pub fn new(seed: u64, purpose: Purpose, major: u32, minor: u32) -> Self {
        let seed = [seed as u32, (seed >> 32) as u32];
        let purpose = threefry(seed, [purpose as u32, 0]);
        Self { key: threefry(purpose, [major, minor]) }
    }

    /// Two words for element `position` of image `index`.
    pub fn words(&self, index: u32, position: u32) -> [u32; 2] {
        threefry(self.key, [index, position])
    }

    /// Uniform in [0, 1), a multiple of 2^-24.
    pub fn uniform(&self, index: u32, position: u32) -> f32 {
        unit(self.words(index, position)[0])
    }

    /// Uniform in 0..bound.
    ///
    /// # Panics
    /// When `bound` is 0.
    pub fn below(&self, index: u32, position: u32, bound: u32) -> u32 {
        assert!(bound > 0, "an empty range has no element");
        let [a, b] = self.words(index, position);
        // 64 random bits make the bias of the reduction smaller than 2^-32.
        ((u128::from(u64::from(a) << 32 | u64::from(b)) * u128::from(bound)) >> 64) as u32
    }

    /// Standard normal (Box-Muller).
    pub fn normal(&self, index: u32, position: u32) -> f32 {
        let [a, b] = self.words(index, position);
        // 1 - u lies in (0, 1]: the logarithm is finite.
        let radius = (-2.0 * (1.0 - unit(a)).ln()).sqrt();
        radius * (std::f32::consts::TAU * unit(b)).cos()
    }

    /// A permutation of 0..len.
    pub fn permutation(&self, len: u32) -> Vec<u32> {
        let mut order: Vec<u32> = (0..len).collect();
        for i in (1..len).rev() {
            order.swap(i as usize, self.below(i, 0, i + 1) as usize);
        }
        order
    }
}

fn unit(word: u32) -> f32 {
    (word >> 8) as f32 * (1.0 / 16_777_216.0)
}

/// Threefry-2x32-20.
pub fn threefry(key: [u32; 2], counter: [u32; 2]) -> [u32; 2] {
    const ROTATIONS: [u32; 8] = [13, 15, 26, 6, 17, 29, 16, 24];
    let keys = [key[0], key[1], 0x1BD1_1BDA ^ key[0] ^ key[1]];
    let [mut x, mut y] = [counter[0].wrapping_add(keys[0]), counter[1].wrapping_add(keys[1])];
    for round in 0..20_usize {
        x = x.wrapping_add(y);
        y = y.rotate_left(ROTATIONS[round % 8]) ^ x;
        if round % 4 == 3 {
            let injection = round / 4 + 1;
            x = x.wrapping_add(keys[injection % 3]);
            y = y.wrapping_add(keys[(injection + 1) % 3]).wrapping_add(injection as u32);
        }
    }
    [x, y]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Known answers of the Random123 distribution (kat_vectors, threefry2x32, 20 rounds).
    #[test]
    fn known_answers() {
        assert_eq!(threefry([0, 0], [0, 0]), [0x6b20_0159, 0x99ba_4efe]);
        assert_eq!(threefry([u32::MAX; 2], [u32::MAX; 2]), [0x1cb9_96fc, 0xbb00_2be7]);
        assert_eq!(
            threefry([0x1319_8a2e, 0x0370_7344], [0x243f_6a88, 0x85a3_08d3]),
            [0xc492_3a9c, 0x483d_f7a0]
        );
    }

    #[test]
    fn permutation_has_every_element() {
        let mut order = Stream::new(7, Purpose::Shuffle, 3, 0).permutation(1000);
        assert_ne!(order[..10], (0..10).collect::<Vec<_>>()[..]);
        order.sort_unstable();
        assert_eq!(order, (0..1000).collect::<Vec<_>>());
    }

    #[test]
    fn moments() {
        let stream = Stream::new(1, Purpose::Probe, 0, 0);
        let count = 20_000;
        let mean =
            |f: &dyn Fn(u32) -> f32| (0..count).map(|i| f64::from(f(i))).sum::<f64>() / f64::from(count);
        assert!((mean(&|i| stream.uniform(i, 0)) - 0.5).abs() < 0.01);
        assert!(mean(&|i| stream.normal(0, i)).abs() < 0.03);
        assert!((mean(&|i| stream.normal(0, i).powi(2)) - 1.0).abs() < 0.05);
        assert!((mean(&|i| stream.below(i, 1, 10) as f32) - 4.5).abs() < 0.1);
    }
}
