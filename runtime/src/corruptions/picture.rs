//! What the corruptions share: a picture of numbers, its random numbers, and filters.

use crate::random::{Purpose, Stream};

/// Planes of height x width, one a channel.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Picture {
    pub height: usize,
    pub width: usize,
    pub planes: Vec<Vec<f64>>,
}

impl Picture {
    /// From bytes to [0, 1].
    pub fn from_bytes(image: &[u8], [channels, height, width]: [usize; 3]) -> Self {
        assert_eq!(image.len(), channels * height * width, "an image fills its shape");
        let plane = |bytes: &[u8]| bytes.iter().map(|&b| f64::from(b) / 255.0).collect();
        Self { height, width, planes: image.chunks_exact(height * width).map(plane).collect() }
    }

    /// Clipped to [0, 1]; the part of a level is cut off, as a cast to `np.uint8` does.
    pub fn to_bytes(&self) -> Vec<u8> {
        // A product such as 0.2 * 255 may fall short of its level by a rounding.
        let byte = |v: &f64| (v.clamp(0.0, 1.0) * 255.0 + 1e-9) as u8;
        self.planes.iter().flatten().map(byte).collect()
    }

    /// Every value by itself.
    pub fn map(&mut self, f: impl Fn(f64) -> f64) {
        self.planes.iter_mut().flatten().for_each(|v| *v = f(*v));
    }

    /// Every plane by itself, which becomes what `f` makes of it.
    pub fn filter(&mut self, f: impl Fn(&[f64]) -> Vec<f64>) {
        for plane in &mut self.planes {
            *plane = f(plane);
        }
    }
}

/// The random numbers of one image under one corruption.
pub(super) struct Draws {
    stream: Stream,
    index: u32,
    position: u32,
}

impl Draws {
    pub fn new(seed: u64, corruption: u32, severity: u32, index: u32) -> Self {
        Self { stream: Stream::new(seed, Purpose::Corruption, corruption, severity), index, position: 0 }
    }

    /// Uniform in [0, 1), with 53 bits.
    pub fn unit(&mut self) -> f64 {
        let [a, b] = self.stream.words(self.index, self.position);
        self.position += 1;
        let bits = (u64::from(a) << 32 | u64::from(b)) >> 11;
        bits as f64 / (1u64 << 53) as f64
    }

    pub fn uniform(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    /// A whole number in low..high.
    pub fn whole(&mut self, low: i64, high: i64) -> i64 {
        low + (self.unit() * (high - low) as f64) as i64
    }

    /// Normal with this mean and deviation (Box-Muller).
    pub fn normal(&mut self, mean: f64, deviation: f64) -> f64 {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        mean + deviation * radius * (std::f64::consts::TAU * self.unit()).cos()
    }

    /// Poisson, by inversion: probabilities are taken off a uniform number from the likeliest value
    /// outwards.
    pub fn poisson(&mut self, mean: f64) -> f64 {
        if mean <= 0.0 {
            return 0.0;
        }
        let mut left = self.unit();
        let mode = mean.floor();
        let likeliest = (mode * mean.ln() - mean - log_factorial(mode)).exp();
        let (mut low, mut high) = (mode, mode);
        let (mut p_low, mut p_high) = (likeliest, likeliest);
        left -= likeliest;
        while left > 0.0 && (p_low > 0.0 || p_high > 1e-300) {
            high += 1.0;
            p_high *= mean / high;
            left -= p_high;
            if left <= 0.0 {
                return high;
            }
            p_low *= low / mean;
            low -= 1.0;
            left -= p_low;
            if left <= 0.0 && low >= 0.0 {
                return low;
            }
        }
        mode
    }
}

/// ln n!, by Stirling's series where it is exact to 12 digits.
fn log_factorial(n: f64) -> f64 {
    if n < 20.0 {
        return (1..=n as u32).map(|k| f64::from(k).ln()).sum();
    }
    let series = 1.0 / (12.0 * n) - 1.0 / (360.0 * n.powi(3)) + 1.0 / (1260.0 * n.powi(5));
    n * n.ln() - n + 0.5 * (std::f64::consts::TAU * n).ln() + series
}

/// What lies outside of an image.
#[derive(Clone, Copy)]
pub(super) enum Border {
    /// The nearest pixel.
    Nearest,
    /// A mirror at the edge: c b a | a b c | c b a.
    Reflect,
    /// A mirror in the outermost pixels: c b | a b c | b a.
    Reflect101,
}

impl Border {
    /// The position inside that stands for `at`.
    pub fn inside(self, at: i64, len: usize) -> usize {
        let n = len as i64;
        if n == 1 {
            return 0;
        }
        (match self {
            Self::Nearest => at.clamp(0, n - 1),
            Self::Reflect => {
                let at = at.rem_euclid(2 * n);
                if at < n { at } else { 2 * n - 1 - at }
            }
            Self::Reflect101 => {
                let at = at.rem_euclid(2 * n - 2);
                if at < n { at } else { 2 * n - 2 - at }
            }
        }) as usize
    }
}

/// A Gaussian filter as `scipy.ndimage.gaussian_filter` has it: `truncate` deviations to each side.
pub(super) fn gaussian(
    plane: &[f64],
    [height, width]: [usize; 2],
    sigma: f64,
    truncate: f64,
    border: Border,
) -> Vec<f64> {
    if sigma <= 0.0 {
        return plane.to_vec();
    }
    let radius = (truncate * sigma + 0.5) as i64;
    let weights: Vec<f64> = (-radius..=radius).map(|i| (-0.5 * (i as f64 / sigma).powi(2)).exp()).collect();
    let sum: f64 = weights.iter().sum();
    let at = |i: usize, len: usize, k: usize| border.inside(i as i64 + k as i64 - radius, len);
    let mut columns = vec![0.0; plane.len()];
    for y in 0..height {
        for (k, weight) in weights.iter().enumerate() {
            let from = at(y, height, k);
            for x in 0..width {
                columns[y * width + x] += weight / sum * plane[from * width + x];
            }
        }
    }
    let mut out = vec![0.0; plane.len()];
    for y in 0..height {
        for x in 0..width {
            let row = &columns[y * width..][..width];
            out[y * width + x] =
                weights.iter().enumerate().map(|(k, w)| w / sum * row[at(x, width, k)]).sum();
        }
    }
    out
}

/// The value between pixels, with straight lines between their centres.
pub(super) fn bilinear(plane: &[f64], [height, width]: [usize; 2], y: f64, x: f64, border: Border) -> f64 {
    let (top, left) = (y.floor(), x.floor());
    let (dy, dx) = (y - top, x - left);
    let pixel = |y: i64, x: i64| plane[border.inside(y, height) * width + border.inside(x, width)];
    let (top, left) = (top as i64, left as i64);
    let row = |y: i64| pixel(y, left) * (1.0 - dx) + pixel(y, left + 1) * dx;
    row(top) * (1.0 - dy) + row(top + 1) * dy
}

/// The middle, enlarged to the whole (`scipy.ndimage.zoom` of order 1, then cut).
pub(super) fn zoom(plane: &[f64], [height, width]: [usize; 2], factor: f64) -> Vec<f64> {
    let axis = |len: usize| {
        let cut = ((len as f64 / factor).ceil() as usize).clamp(1, len);
        let large = (cut as f64 * factor).round() as usize;
        let scale = if large > 1 { (cut - 1) as f64 / (large - 1) as f64 } else { 0.0 };
        let (first, trim) = ((len - cut) / 2, large.saturating_sub(len) / 2);
        move |i: usize| first as f64 + ((i + trim) as f64 * scale).min((cut - 1) as f64)
    };
    let (row, column) = (axis(height), axis(width));
    let at = |i: usize| bilinear(plane, [height, width], row(i / width), column(i % width), Border::Nearest);
    (0..height * width).map(at).collect()
}

/// A one-sided Gaussian streak in the direction of `angle`, in degrees, as ImageMagick's motion blur.
pub(super) fn motion(
    plane: &[f64],
    [height, width]: [usize; 2],
    radius: f64,
    sigma: f64,
    angle: f64,
) -> Vec<f64> {
    let long = 2 * radius as usize + 1;
    let weights: Vec<f64> = (0..long).map(|i| (-(i as f64).powi(2) / (2.0 * sigma * sigma)).exp()).collect();
    let sum: f64 = weights.iter().sum();
    let (sin, cos) = angle.to_radians().sin_cos();
    let offset = |i: usize, part: f64| (i as f64 * part - 0.5).ceil() as i64;
    let mut out = vec![0.0; plane.len()];
    for (i, weight) in weights.iter().enumerate() {
        let (dy, dx) = (offset(i, sin), offset(i, cos));
        for y in 0..height {
            let from = Border::Nearest.inside(y as i64 + dy, height) * width;
            for x in 0..width {
                out[y * width + x] +=
                    weight / sum * plane[from + Border::Nearest.inside(x as i64 + dx, width)];
            }
        }
    }
    out
}

/// Hue in [0, 6), saturation and value of a colour.
pub(super) fn to_hsv([r, g, b]: [f64; 3]) -> [f64; 3] {
    let value = r.max(g).max(b);
    let range = value - r.min(g).min(b);
    if range <= 0.0 {
        return [0.0, 0.0, value];
    }
    let hue = match () {
        () if value == r => ((g - b) / range).rem_euclid(6.0),
        () if value == g => 2.0 + (b - r) / range,
        () => 4.0 + (r - g) / range,
    };
    [hue, range / value, value]
}

pub(super) fn from_hsv([hue, saturation, value]: [f64; 3]) -> [f64; 3] {
    let channel = |n: f64| {
        let k = (n + hue).rem_euclid(6.0);
        value - value * saturation * k.min(4.0 - k).clamp(0.0, 1.0)
    };
    [channel(5.0), channel(3.0), channel(1.0)]
}

impl Picture {
    /// Changes saturation and value of every pixel; grey pictures have a value alone.
    pub fn map_hsv(&mut self, f: impl Fn([f64; 3]) -> [f64; 3]) {
        if let [r, g, b] = &mut self.planes[..] {
            for ((r, g), b) in r.iter_mut().zip(g).zip(b) {
                [*r, *g, *b] = from_hsv(f(to_hsv([*r, *g, *b])));
            }
        } else {
            self.map(|v| f([0.0, 0.0, v])[2]);
        }
    }
}
