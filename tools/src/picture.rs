//! Images of the models as pictures that people see.

use std::io::Cursor;

use anyhow::{Result, bail};
use image::{DynamicImage, GrayImage, ImageFormat, RgbImage};

/// Whether an image of so many channels can be shown.
pub const fn is_shown(channels: usize) -> bool {
    matches!(channels, 1 | 3)
}

/// A PNG of channels x height x width values in [0, 1]: lossless but for its 256 levels.
pub fn png(pixels: &[f32], [channels, height, width]: [usize; 3]) -> Result<Vec<u8>> {
    if !is_shown(channels) || pixels.len() != channels * height * width {
        bail!("{} values of {channels} channels are no picture of {width} x {height}", pixels.len());
    }
    let plane = height * width;
    let level = |c: usize, n: usize| (pixels[c * plane + n].clamp(0.0, 1.0) * 255.0).round() as u8;
    let levels: Vec<u8> = (0..plane).flat_map(|n| (0..channels).map(move |c| level(c, n))).collect();
    let (width, height) = (u32::try_from(width)?, u32::try_from(height)?);
    let picture = match channels {
        1 => GrayImage::from_raw(width, height, levels).map(DynamicImage::from),
        _ => RgbImage::from_raw(width, height, levels).map(DynamicImage::from),
    };
    let mut png = Cursor::new(Vec::new());
    if let Some(picture) = picture {
        picture.write_to(&mut png, ImageFormat::Png)?;
    }
    Ok(png.into_inner())
}

/// A PNG as an address inside a page.
pub fn data_uri(png: &[u8]) -> String {
    format!("data:image/png;base64,{}", base64(png))
}

/// RFC 4648.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for part in bytes.chunks(3) {
        let word = part.iter().fold(0u32, |w, &b| w << 8 | u32::from(b)) << (8 * (3 - part.len()));
        for i in 0..4 {
            let digit = DIGITS[(word >> (18 - 6 * i)) as usize & 63];
            text.push(if i <= part.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The test vectors of RFC 4648, section 10.
    #[test]
    fn base64_is_the_standards() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
    }

    #[test]
    fn pictures_read_back() {
        let pixels: Vec<f32> = (0..18_u8).map(|i| f32::from(i) / 17.0).collect();
        let found = image::load_from_memory(&png(&pixels, [3, 2, 3]).unwrap()).unwrap().to_rgb8();
        assert_eq!((found.dimensions(), found.get_pixel(1, 0).0), ((3, 2), [15, 105, 195]));
        assert!(png(&pixels, [2, 3, 3]).is_err() && png(&pixels, [3, 3, 3]).is_err());
    }
}
