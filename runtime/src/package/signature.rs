//! Who made a package. A signature (ed25519) over header and metadata covers the whole file: the metadata
//! holds the hash of every blob.
//!
//! It follows the blobs, and a flag in the header announces it:
//!
//! | bytes | content |
//! |---|---|
//! | 0..32 | public key |
//! | 32..96 | signature |
//! | 96..112 | the first half of the BLAKE3 hash of both, so that damage is found without the key |

use serde::Serialize;

use super::header::array_at;

/// Bytes of the block.
pub(super) const LEN: usize = 112;
/// Where its hash begins.
const SEALED: usize = 96;

/// The block at the end of a signed package, as it was written.
#[derive(Clone, Copy)]
pub(super) struct SignatureBlock {
    pub public_key: [u8; 32],
    #[cfg_attr(not(feature = "sign"), expect(dead_code, reason = "only a build that can check reads it"))]
    pub signature: [u8; 64],
}

impl SignatureBlock {
    #[cfg(feature = "sign")]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = [&self.public_key[..], &self.signature[..]].concat();
        bytes.extend(&blake3::hash(&bytes).as_bytes()[..LEN - SEALED]);
        bytes
    }

    /// Reads a block of [`LEN`] bytes.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        if blake3::hash(&bytes[..SEALED]).as_bytes()[..LEN - SEALED] != bytes[SEALED..] {
            return Err("signature corrupt: it does not match its hash".into());
        }
        Ok(Self { public_key: array_at(bytes, 0), signature: array_at(bytes, 32) })
    }
}

/// What is known of the maker of a package.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(tag = "state", content = "public_key", rename_all = "lowercase")]
pub enum Signature {
    /// The package is not signed: whoever has it may have changed it.
    None,
    /// Signed by the owner of the secret part of this key, and unchanged since.
    Valid(String),
    /// Not signed by the owner of this key, or changed since.
    Invalid(String),
    /// Signed, it says, by the owner of this key; this build cannot check it (feature `sign`).
    Unchecked(String),
}

impl Signature {
    pub(super) fn of(block: Option<&SignatureBlock>, message: &[u8]) -> Self {
        let Some(block) = block else { return Self::None };
        let key = to_hex(&block.public_key);
        check(block, message).map_or_else(
            || Self::Unchecked(key.clone()),
            |valid| if valid { Self::Valid(key.clone()) } else { Self::Invalid(key.clone()) },
        )
    }
}

#[cfg(not(feature = "sign"))]
fn check(_block: &SignatureBlock, _message: &[u8]) -> Option<bool> {
    None
}

#[cfg(feature = "sign")]
fn check(block: &SignatureBlock, message: &[u8]) -> Option<bool> {
    let signature = ed25519_dalek::Signature::from_bytes(&block.signature);
    let key = ed25519_dalek::VerifyingKey::from_bytes(&block.public_key);
    Some(key.is_ok_and(|key| key.verify_strict(message, &signature).is_ok()))
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// The secret key that signs packages.
#[cfg(feature = "sign")]
pub struct SigningKey(ed25519_dalek::SigningKey);

#[cfg(feature = "sign")]
impl SigningKey {
    /// A new key, from the operating system's random numbers.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) when it has none.
    pub fn generate() -> crate::Result<Self> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed)
            .map_err(|e| crate::Error::Config(format!("no random numbers from the system: {e}")))?;
        Ok(Self(ed25519_dalek::SigningKey::from_bytes(&seed)))
    }

    /// The key as [`SigningKey::to_text`] wrote it.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) when the text is anything else.
    pub fn from_text(text: &str) -> crate::Result<Self> {
        let digits = text.trim().strip_prefix(SECRET);
        let seed = digits
            .and_then(|d| parse_key(d.trim()))
            .ok_or_else(|| crate::Error::Config("not a secret key; `adamant keygen` makes one".into()))?;
        Ok(Self(ed25519_dalek::SigningKey::from_bytes(&seed)))
    }

    /// The secret: whoever has it signs in the owner's name.
    pub fn to_text(&self) -> String {
        format!("{SECRET} {}\n", to_hex(&self.0.to_bytes()))
    }

    /// 64 hexadecimal digits, for everybody.
    pub fn public_key(&self) -> String {
        to_hex(self.0.verifying_key().as_bytes())
    }

    pub(super) fn sign(&self, message: &[u8]) -> SignatureBlock {
        use ed25519_dalek::Signer;
        SignatureBlock {
            public_key: self.0.verifying_key().to_bytes(),
            signature: self.0.sign(message).to_bytes(),
        }
    }
}

/// How a file with a secret key begins, so that nobody takes it for the public one.
#[cfg(feature = "sign")]
const SECRET: &str = "adamant-secret-key";

/// 32 bytes from 64 hexadecimal digits.
#[cfg(feature = "sign")]
fn parse_key(digits: &str) -> Option<[u8; 32]> {
    let mut key = [0; 32];
    if digits.len() != 64 || !digits.is_ascii() {
        return None;
    }
    for (byte, pair) in key.iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(key)
}

#[cfg(all(test, feature = "sign"))]
mod tests {
    use super::*;

    #[test]
    fn a_key_survives_its_file() {
        let key = SigningKey::generate().expect("the system has random numbers");
        let again = SigningKey::from_text(&key.to_text()).expect("it was just written");
        assert_eq!(again.public_key(), key.public_key());
        assert_ne!(SigningKey::generate().expect("as above").public_key(), key.public_key());
        for wrong in ["", "adamant-secret-key 12", &key.public_key(), &format!("{SECRET} {}", "é".repeat(32))]
        {
            assert!(SigningKey::from_text(wrong).is_err(), "{wrong}");
        }
    }

    /// RFC 8032, section 7.1, test 2.
    #[test]
    fn signatures_are_those_of_the_standard() {
        let secret = "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb";
        let key = SigningKey::from_text(&format!("{SECRET} {secret}")).expect("64 digits");
        assert_eq!(key.public_key(), "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c");
        let block = key.sign(&[0x72]);
        assert!(to_hex(&block.signature).starts_with("92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8f"));
        assert_eq!(Signature::of(Some(&block), &[0x72]), Signature::Valid(key.public_key()));
        assert_eq!(Signature::of(Some(&block), &[0x73]), Signature::Invalid(key.public_key()));
    }
}
