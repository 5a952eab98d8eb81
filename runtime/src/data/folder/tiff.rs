//! A look at a TIFF file before it is decoded: its decoder believes how many values a tag has, and makes room for
//! them.

/// Bytes of a value of each type, by its number: TIFF 6.0, section 2, and BigTIFF's 16 to 18.
const SIZES: [u64; 19] = [0, 1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4, 0, 0, 8, 8, 8];

/// Whether the tags of the first directory announce no more values than the file can hold. What is no TIFF file, or
/// cut off, is the decoder's to refuse.
pub(super) fn is_plausible(file: &[u8]) -> bool {
    let big_endian = file.starts_with(b"MM");
    // Little-endian or big-endian; an unsigned number of `len` bytes.
    let number = |at: u64, len: usize| -> Option<u64> {
        let at = usize::try_from(at).ok()?;
        let bytes = file.get(at..at.checked_add(len)?)?;
        let fold = |sum: u64, byte: &u8| sum << 8 | u64::from(*byte);
        Some(if big_endian { bytes.iter().fold(0, fold) } else { bytes.iter().rev().fold(0, fold) })
    };
    let found = || -> Option<bool> {
        if !big_endian && !file.starts_with(b"II") {
            return None;
        }
        // BigTIFF has wider numbers, in the same order.
        let (wide, first) = match number(2, 2)? {
            42 => (false, number(4, 4)?),
            43 => (true, number(8, 8)?),
            _ => return None,
        };
        let (count_len, entry_len, word) = if wide { (8, 20, 8) } else { (2, 12, 4) };
        let entries = number(first, count_len)?;
        let start = first.checked_add(count_len as u64)?;
        for index in 0..entries {
            let entry = start.checked_add(index.checked_mul(entry_len)?)?;
            let kind = number(entry.checked_add(2)?, 2)?;
            let values = number(entry.checked_add(4)?, word)?;
            let size = usize::try_from(kind).ok().and_then(|k| SIZES.get(k)).copied().unwrap_or(0).max(1);
            if values.checked_mul(size).is_none_or(|bytes| bytes > file.len() as u64) {
                return Some(false);
            }
        }
        Some(true)
    };
    found().unwrap_or(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory with one tag that has `count` values of type `kind`.
    fn file(big_endian: bool, kind: u16, count: u32) -> Vec<u8> {
        let [short, long]: [fn(u32) -> Vec<u8>; 2] = match big_endian {
            true => [|v| (v as u16).to_be_bytes().to_vec(), |v| v.to_be_bytes().to_vec()],
            false => [|v| (v as u16).to_le_bytes().to_vec(), |v| v.to_le_bytes().to_vec()],
        };
        let begin = if big_endian { *b"MM" } else { *b"II" };
        [
            &begin[..],
            &short(42),
            &long(8),
            &short(1),
            &short(279),
            &short(kind.into()),
            &long(count),
            &long(0),
        ]
        .concat()
    }

    #[test]
    fn tags_fit_their_file() {
        for big_endian in [false, true] {
            assert!(is_plausible(&file(big_endian, 4, 5)));
            for (kind, count) in [(4, 7), (1, 23), (12, 3), (99, 23), (4, u32::MAX)] {
                assert!(!is_plausible(&file(big_endian, kind, count)), "{count} of type {kind}");
            }
            let whole = file(big_endian, 4, u32::MAX);
            assert!((0..=whole.len()).all(|cut| is_plausible(&whole[..cut]) == (cut < 18)));
        }
        assert!(is_plausible(b"\x89PNG") && is_plausible(b""));
    }
}
