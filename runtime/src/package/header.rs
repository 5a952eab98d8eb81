//! The first 64 bytes of a package: what it is, and where its parts lie.
//!
//! | bytes | content, little-endian |
//! |---|---|
//! | 0..8 | `ADAMANT\0` |
//! | 8..10, 10..12 | format version: major, minor |
//! | 12..16 | flags: bit 0, a signature follows the blobs |
//! | 16..24, 24..32 | metadata: offset, length |
//! | 32..40, 40..48 | blobs: offset, length |
//! | 48..64 | seal: the first half of the BLAKE3 hash of bytes 0..48 and the metadata |

use super::signature;

pub(super) const LEN: usize = 64;
/// Where the seal begins, which covers everything before it.
const SEALED: usize = 48;
pub(super) const MAGIC: [u8; 8] = *b"ADAMANT\0";

/// The blobs start at a multiple of this: the page size of most systems, so that they can be mapped.
pub(super) const PAGE: u64 = 4096;

/// A reader refuses a newer major version. A newer minor version only adds what an older reader may
/// ignore, flags and bytes after the blobs, or what it refuses by name.
///
/// | version | new |
/// |---|---|
/// | 1.0 | |
/// | 1.1 | weights as f16 and int8, signatures |
pub(super) const MAJOR: u16 = 1;
pub(super) const MINOR: u16 = 1;

/// A signature follows the blobs.
const SIGNED: u32 = 1;

/// A part of the file, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Section {
    pub offset: u64,
    pub length: u64,
}

impl Section {
    fn end(self) -> Option<u64> {
        self.offset.checked_add(self.length)
    }

    /// The section's bytes. `file` is at least as long as [`Header::parse`] made sure of.
    pub fn of(self, file: &[u8]) -> &[u8] {
        &file[self.offset as usize..][..self.length as usize]
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Header {
    pub minor: u16,
    pub flags: u32,
    pub metadata: Section,
    pub blobs: Section,
}

impl Header {
    /// The header of a file of this minor version that holds nothing but `metadata`, padding and blobs.
    pub fn new(minor: u16, signed: bool, metadata: u64, blobs: u64) -> Self {
        let metadata = Section { offset: LEN as u64, length: metadata };
        let blobs =
            Section { offset: (metadata.offset + metadata.length).next_multiple_of(PAGE), length: blobs };
        Self { minor, flags: if signed { SIGNED } else { 0 }, metadata, blobs }
    }

    /// Whether the file may hold what this version does not know, and is to ignore.
    pub fn is_newer(&self) -> bool {
        self.minor > MINOR
    }

    pub fn is_signed(&self) -> bool {
        self.flags & SIGNED != 0
    }

    pub fn encode(&self, metadata: &[u8]) -> [u8; LEN] {
        let mut bytes = [0; LEN];
        bytes[0..8].copy_from_slice(&MAGIC);
        bytes[8..10].copy_from_slice(&MAJOR.to_le_bytes());
        bytes[10..12].copy_from_slice(&self.minor.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.flags.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.metadata.offset.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.metadata.length.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.blobs.offset.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.blobs.length.to_le_bytes());
        let seal = seal(&bytes[..SEALED], metadata);
        bytes[SEALED..].copy_from_slice(&seal);
        bytes
    }

    /// Reads and checks the header of `file`. Afterwards its sections lie within the file, do not
    /// overlap, and header and metadata are as they were written.
    pub fn parse(file: &[u8]) -> Result<Self, String> {
        let start = &file[..file.len().min(MAGIC.len())];
        if !MAGIC.starts_with(start) {
            return Err("not an Adamant package".into());
        }
        // A later version may have another header: tell it apart before reading on.
        if let Some(version) = file.get(8..12) {
            let (major, minor) = (u16_at(version, 0), u16_at(version, 2));
            if major > MAJOR {
                return Err(format!(
                    "format {major}.{minor}; this Adamant reads up to {MAJOR}.x: update Adamant"
                ));
            }
            if major == 0 {
                return Err(format!("header corrupt: there is no format {major}.{minor}"));
            }
        }
        let Some(bytes) = file.get(..LEN) else {
            return Err(format!("truncated: the header takes {LEN} bytes, the file has {}", file.len()));
        };
        let header = Self {
            minor: u16_at(bytes, 10),
            flags: u32::from_le_bytes(array_at(bytes, 12)),
            metadata: Section { offset: u64_at(bytes, 16), length: u64_at(bytes, 24) },
            blobs: Section { offset: u64_at(bytes, 32), length: u64_at(bytes, 40) },
        };
        header.check_bounds(file.len() as u64)?;
        if seal(&bytes[..SEALED], header.metadata.of(file)) != bytes[SEALED..] {
            return Err("metadata corrupt: it, or the header, does not match the hash in the header".into());
        }
        if header.flags & !SIGNED != 0 && !header.is_newer() {
            return Err(format!("header corrupt: unknown flags {:#x}", header.flags));
        }
        Ok(header)
    }

    fn check_bounds(&self, file: u64) -> Result<(), String> {
        let corrupt = |what: &str| format!("header corrupt: {what}");
        let metadata = self.metadata.end().ok_or_else(|| corrupt("the metadata's end overflows"))?;
        let end = self.blobs.end().ok_or_else(|| corrupt("the blobs' end overflows"))?;
        if self.metadata.offset != LEN as u64 {
            return Err(corrupt("the metadata does not follow the header"));
        }
        if self.blobs.offset < metadata {
            return Err(corrupt("metadata and blobs overlap"));
        }
        if !self.blobs.offset.is_multiple_of(PAGE) {
            return Err(corrupt("the blobs are not aligned"));
        }
        let end = end.saturating_add(if self.is_signed() { signature::LEN as u64 } else { 0 });
        if end > file {
            return Err(format!("truncated: the header announces {end} bytes, the file has {file}"));
        }
        if end < file && !self.is_newer() {
            return Err(format!("{} bytes follow the end of the package", file - end));
        }
        Ok(())
    }
}

/// The hash that tells whether header or metadata changed.
fn seal(header: &[u8], metadata: &[u8]) -> [u8; LEN - SEALED] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(header).update(metadata);
    array_at(hasher.finalize().as_bytes(), 0)
}

/// `N` bytes from `offset`, which the caller knows to be there.
pub(super) fn array_at<const N: usize>(bytes: &[u8], offset: usize) -> [u8; N] {
    let mut found = [0; N];
    found.copy_from_slice(&bytes[offset..offset + N]);
    found
}

fn u16_at(bytes: &[u8], offset: usize) -> u16 {
    u16::from_le_bytes(array_at(bytes, offset))
}

fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    u64::from_le_bytes(array_at(bytes, offset))
}
