//! MATLAB's level 5 files (`.mat`), as far as arrays of numbers go: what SVHN is published as.
//!
//! A file is a header of 128 bytes and elements; an element is a type, a length and data. An array is an
//! element made of others: flags, dimensions, name, numbers in column-major order. Most are compressed.

use std::io::Read;
use std::path::Path;

use flate2::bufread::ZlibDecoder;

use super::open::{MAX_FILE_BYTES, read_bounded};
use crate::error::{Error, Result};

/// An array of numbers: the first dimension varies fastest.
#[derive(Debug, PartialEq)]
pub(super) struct Array {
    pub name: String,
    pub dims: Vec<usize>,
    pub values: Values,
}

#[derive(Debug, PartialEq)]
pub(super) enum Values {
    Bytes(Vec<u8>),
    /// Of any other type.
    Numbers(Vec<f64>),
}

/// Element types of the format.
mod kind {
    pub const INT8: u32 = 1;
    pub const UINT8: u32 = 2;
    pub const INT16: u32 = 3;
    pub const UINT16: u32 = 4;
    pub const INT32: u32 = 5;
    pub const UINT32: u32 = 6;
    pub const SINGLE: u32 = 7;
    pub const DOUBLE: u32 = 9;
    pub const MATRIX: u32 = 14;
    pub const COMPRESSED: u32 = 15;
}

const HEADER: usize = 128;

/// The arrays of a file.
pub(super) fn read(path: &Path) -> Result<Vec<Array>> {
    let bytes = read_bounded(path, MAX_FILE_BYTES)?;
    parse(&bytes).map_err(|message| Error::data(path, message))
}

fn parse(bytes: &[u8]) -> Result<Vec<Array>, String> {
    let header = bytes.get(..HEADER).ok_or("is shorter than the header of a MATLAB 5 file")?;
    match &header[126..] {
        b"IM" if header[124..126] == [0, 2] => {
            return Err("is a MATLAB 7.3 file; save it with -v6 or -v7".into());
        }
        b"IM" => {}
        b"MI" => return Err("is a big-endian MATLAB file, which is not supported".into()),
        _ => return Err("is not a MATLAB 5 file; save it with -v6 or -v7".into()),
    }
    let mut rest = &bytes[HEADER..];
    let mut arrays = Vec::new();
    while !rest.is_empty() {
        let element = Element::take(&mut rest)?;
        match element.kind {
            kind::MATRIX => arrays.push(array(element.data)?),
            kind::COMPRESSED => {
                let mut unpacked = Vec::new();
                let decoder = ZlibDecoder::new(element.data);
                // One byte more than is allowed shows an excess.
                decoder
                    .take(MAX_FILE_BYTES + 1)
                    .read_to_end(&mut unpacked)
                    .map_err(|e| format!("cannot be unpacked: {e}; download it again"))?;
                if unpacked.len() as u64 > MAX_FILE_BYTES {
                    return Err("unpacks to more bytes than any such file has".into());
                }
                let element = Element::take(&mut unpacked.as_slice())?;
                if element.kind == kind::MATRIX {
                    arrays.push(array(element.data)?);
                }
            }
            _ => {}
        }
    }
    Ok(arrays)
}

struct Element<'a> {
    kind: u32,
    data: &'a [u8],
}

impl<'a> Element<'a> {
    /// The first element of `rest`, which then is what follows it.
    fn take(rest: &mut &'a [u8]) -> Result<Self, String> {
        let cut = || "ends in the middle of an element; download it again".to_owned();
        let tag = rest.get(..8).ok_or_else(cut)?;
        let word = |at: usize| u32::from_le_bytes([tag[at], tag[at + 1], tag[at + 2], tag[at + 3]]);
        let (first, second) = (word(0), word(4));
        // Up to four bytes may stand in the place of the length.
        if first >> 16 != 0 {
            let (kind, len) = (first & 0xffff, (first >> 16) as usize);
            let data = rest.get(4..4 + len.min(5)).filter(|d| d.len() == len && len <= 4).ok_or_else(cut)?;
            *rest = &rest[8..];
            return Ok(Self { kind, data });
        }
        let len = second as usize;
        let end = len.checked_add(8).ok_or_else(cut)?;
        let data = rest.get(8..end).ok_or_else(cut)?;
        // All but compressed elements fill up to eight bytes; the last may not.
        let padded = if first == kind::COMPRESSED { end } else { end.next_multiple_of(8) };
        *rest = &rest[padded.min(rest.len())..];
        Ok(Self { kind: first, data })
    }
}

fn array(mut parts: &[u8]) -> Result<Array, String> {
    let rest = &mut parts;
    let _flags = Element::take(rest)?;
    let dims = numbers(&Element::take(rest)?)?;
    let name = String::from_utf8_lossy(Element::take(rest)?.data).into_owned();
    let whole = |d: &f64| *d >= 0.0 && *d <= f64::from(u32::MAX);
    if !dims.iter().all(whole) {
        return Err(format!("array '{name}' has dimensions {dims:?}"));
    }
    let dims: Vec<usize> = dims.into_iter().map(|d| d as usize).collect();
    let element = Element::take(rest)?;
    let values = match element.kind {
        kind::UINT8 => Values::Bytes(element.data.to_vec()),
        _ => Values::Numbers(numbers(&element)?),
    };
    let found = match &values {
        Values::Bytes(bytes) => bytes.len(),
        Values::Numbers(numbers) => numbers.len(),
    };
    let len = dims.iter().try_fold(1usize, |a, &d| a.checked_mul(d));
    if len != Some(found) {
        return Err(format!("array '{name}' of {dims:?} has {found} values; download it again"));
    }
    Ok(Array { name, dims, values })
}

fn numbers(element: &Element<'_>) -> Result<Vec<f64>, String> {
    fn each<const N: usize>(data: &[u8], f: impl Fn([u8; N]) -> f64) -> Vec<f64> {
        data.as_chunks::<N>().0.iter().map(|&bytes| f(bytes)).collect()
    }
    let data = element.data;
    Ok(match element.kind {
        kind::INT8 => each(data, |b| i8::from_le_bytes(b).into()),
        kind::UINT8 => each(data, |b| u8::from_le_bytes(b).into()),
        kind::INT16 => each(data, |b| i16::from_le_bytes(b).into()),
        kind::UINT16 => each(data, |b| u16::from_le_bytes(b).into()),
        kind::INT32 => each(data, |b| i32::from_le_bytes(b).into()),
        kind::UINT32 => each(data, |b| u32::from_le_bytes(b).into()),
        kind::SINGLE => each(data, |b| f32::from_le_bytes(b).into()),
        kind::DOUBLE => each(data, f64::from_le_bytes),
        other => return Err(format!("holds an array of type {other}, which is no number")),
    })
}

#[cfg(test)]
pub(super) mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::ZlibEncoder;

    use super::*;

    fn element(kind: u32, data: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        if data.len() <= 4 && !data.is_empty() {
            bytes.extend((kind | (data.len() as u32) << 16).to_le_bytes());
            bytes.extend(data);
        } else {
            bytes.extend(kind.to_le_bytes());
            bytes.extend((data.len() as u32).to_le_bytes());
            bytes.extend(data);
        }
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        bytes
    }

    /// An array as MATLAB writes it.
    pub fn matrix(name: &str, dims: &[u32], kind: u32, data: &[u8]) -> Vec<u8> {
        let dims: Vec<u8> = dims.iter().flat_map(|d| d.to_le_bytes()).collect();
        let parts = [
            element(super::kind::UINT32, &[6, 0, 0, 0, 0, 0, 0, 0]),
            element(super::kind::INT32, &dims),
            element(super::kind::INT8, name.as_bytes()),
            element(kind, data),
        ];
        element(super::kind::MATRIX, &parts.concat())
    }

    /// A file of such arrays, compressed or not.
    pub fn file(arrays: &[Vec<u8>], compressed: bool) -> Vec<u8> {
        let mut bytes = vec![b' '; 124];
        bytes.extend([0, 1, b'I', b'M']);
        for array in arrays {
            if compressed {
                let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
                encoder.write_all(array).unwrap();
                let packed = encoder.finish().unwrap();
                bytes.extend(super::kind::COMPRESSED.to_le_bytes());
                bytes.extend((packed.len() as u32).to_le_bytes());
                bytes.extend(packed);
            } else {
                bytes.extend(array);
            }
        }
        bytes
    }

    #[test]
    fn arrays_read_back() {
        let doubles: Vec<u8> = [1.0f64, -2.5].iter().flat_map(|v| v.to_le_bytes()).collect();
        let arrays = [
            matrix("X", &[2, 3], kind::UINT8, &[1, 2, 3, 4, 5, 6]),
            matrix("a long name", &[1, 2], kind::DOUBLE, &doubles),
            matrix("y", &[2, 1], kind::UINT16, &[1, 0, 0, 1]),
        ];
        for compressed in [false, true] {
            let found = parse(&file(&arrays, compressed)).unwrap();
            assert_eq!(found.len(), 3);
            assert_eq!((found[0].name.as_str(), found[0].dims.as_slice()), ("X", &[2, 3][..]));
            assert_eq!(found[0].values, Values::Bytes(vec![1, 2, 3, 4, 5, 6]));
            assert_eq!(found[1].values, Values::Numbers(vec![1.0, -2.5]));
            assert_eq!(found[2].values, Values::Numbers(vec![1.0, 256.0]));
        }
    }

    /// Whatever is cut off or changed, reading ends in a message or in arrays, never in a panic.
    #[test]
    fn damage_is_an_error() {
        let whole = file(&[matrix("X", &[2, 3], kind::UINT8, &[1, 2, 3, 4, 5, 6])], false);
        assert!(parse(&whole[..100]).unwrap_err().contains("shorter"));
        for end in HEADER + 1..whole.len() {
            assert!(parse(&whole[..end]).is_err(), "cut at {end}");
        }
        for at in HEADER..whole.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut bytes = whole.clone();
                bytes[at] = value;
                let _ = parse(&bytes);
            }
        }
        let mut big = whole.clone();
        big[126..128].copy_from_slice(b"MI");
        assert!(parse(&big).unwrap_err().contains("big-endian"));
        let mut new = whole.clone();
        new[124..126].copy_from_slice(&[0, 2]);
        assert!(parse(&new).unwrap_err().contains("-v6 or -v7"));
        let wrong = file(&[matrix("X", &[2, 4], kind::UINT8, &[1, 2, 3, 4, 5, 6])], true);
        assert!(parse(&wrong).unwrap_err().contains("6 values"));
    }
}
