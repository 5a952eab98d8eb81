//! Inputs that are nearly right: a function of a seed.

/// Makes inputs of others.
pub struct Mutator {
    state: u64,
}

/// Numbers at the edges of what formats count with.
const EDGES: [u64; 14] =
    [0, 1, 2, 7, 0x7f, 0x80, 0xff, 0x7fff, 0xffff, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff, 1 << 62, u64::MAX];

/// Words of TOML, NumPy's headers and the like.
const WORDS: [&str; 12] =
    ["0", "-1", "1e999", "nan", "inf", "9999999999999999999", "\"\"", "[]", "{}", "true", "\n[a]\n", "= "];

impl Mutator {
    pub const fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// SplitMix64 (Steele et al., 2014).
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `n`, which is not 0.
    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    /// `input` with one to four changes; `other` is spliced in by some.
    pub fn mutate(&mut self, input: &[u8], other: &[u8]) -> Vec<u8> {
        let mut bytes = input.to_vec();
        for _ in 0..=self.below(4) {
            self.change(&mut bytes, other);
        }
        bytes
    }

    /// A part of `bytes`, up to 64 bytes long unless it is the rest.
    fn part(&mut self, bytes: &[u8]) -> std::ops::Range<usize> {
        let start = self.below(bytes.len() + 1);
        let len = if self.below(8) == 0 { usize::MAX } else { self.below(64) };
        start..start.saturating_add(len).min(bytes.len())
    }

    fn change(&mut self, bytes: &mut Vec<u8>, other: &[u8]) {
        if bytes.is_empty() {
            bytes.extend(other);
        }
        let place = |m: &mut Self, len: usize| {
            // Heads of files decide more than their bulk.
            if m.below(2) == 0 { m.below(len.min(256)) } else { m.below(len) }
        };
        match self.below(11) {
            _ if bytes.is_empty() => bytes.push(self.next() as u8),
            0 | 1 => {
                let at = place(self, bytes.len());
                bytes[at] ^= 1 << self.below(8);
            }
            2 => {
                let at = place(self, bytes.len());
                bytes[at] = self.next() as u8;
            }
            3 => bytes.truncate(self.below(bytes.len())),
            4 => drop(bytes.drain(self.part(&bytes.clone()))),
            5 => {
                let part = bytes[self.part(&bytes.clone())].to_vec();
                let at = self.below(bytes.len() + 1);
                bytes.splice(at..at, part);
            }
            6 => {
                let part = other[self.part(other)].to_vec();
                let over = self.part(&bytes.clone());
                bytes.splice(over, part);
            }
            7 | 8 => {
                let edge = EDGES[self.below(EDGES.len())];
                let near = edge.wrapping_add(self.next() % 3).wrapping_sub(1);
                let number = if self.below(4) == 0 { bytes.len() as u64 } else { near };
                let width = 1 << self.below(4);
                let raw =
                    if self.below(2) == 0 { number.to_le_bytes() } else { number.swap_bytes().to_le_bytes() };
                let raw = if raw[0] == 0 && number != 0 { &raw[8 - width..] } else { &raw[..width] };
                let at = place(self, bytes.len());
                let end = (at + width).min(bytes.len());
                bytes[at..end].copy_from_slice(&raw[..end - at]);
            }
            9 => {
                // A number of variable length, as postcard and protobuf write them.
                let mut number = EDGES[self.below(EDGES.len())];
                let mut raw = Vec::new();
                while number >= 0x80 {
                    raw.push(number as u8 | 0x80);
                    number >>= 7;
                }
                raw.push(number as u8);
                let at = place(self, bytes.len());
                let end = (at + self.below(3)).min(bytes.len());
                bytes.splice(at..end, raw);
            }
            _ => {
                // A word in the place of another, or of a number.
                let word = WORDS[self.below(WORDS.len())];
                let at = place(self, bytes.len());
                let len = bytes[at..].iter().take_while(|b| b.is_ascii_alphanumeric()).count();
                bytes.splice(at..at + len, word.bytes());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_inputs_and_another_gives_others() {
        let inputs = |seed| {
            let mut mutator = Mutator::new(seed);
            (0..200).map(|_| mutator.mutate(b"some bytes, 12", b"others")).collect::<Vec<_>>()
        };
        assert_eq!(inputs(1), inputs(1));
        assert_ne!(inputs(1), inputs(2));
        let distinct: std::collections::HashSet<Vec<u8>> = inputs(1).into_iter().collect();
        assert!(distinct.len() > 150, "{}", distinct.len());
    }

    #[test]
    fn nothing_is_too_short() {
        let mut mutator = Mutator::new(0);
        for _ in 0..2000 {
            mutator.mutate(b"", b"");
            mutator.mutate(b"x", b"");
        }
    }
}
