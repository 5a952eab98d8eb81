//! Damage of every kind, accidental and hostile: a package is read whole, or refused with the reason.

use super::super::header::{Header, LEN};
use super::super::metadata::{Metadata, MetadataV1};
use super::super::{TensorCheck, verify, writer};
use super::{bytes, package, parse, report};
use crate::network::Source;
use crate::ops::{Conv2d, CrossEntropy, Op, Pad};
use crate::shape::Shape;

#[track_caller]
fn assert_refused(file: &[u8], reason: &str) {
    let message = parse(file).expect_err("a damaged package was read").to_string();
    assert!(message.starts_with("tiny.adamant: ") && message.contains(reason), "{message}");
}

/// Makes the hash in the header match again, as who tampers on purpose would.
fn reseal(file: &mut [u8]) {
    let length = u64::from_le_bytes(file[24..32].try_into().unwrap());
    let end = usize::try_from(length).ok().and_then(|l| l.checked_add(LEN));
    if let Some(metadata) = end.and_then(|end| file.get(LEN..end)) {
        let hash = blake3::Hasher::new().update(&file[..48]).update(metadata).finalize();
        file[48..LEN].copy_from_slice(&hash.as_bytes()[..16]);
    }
}

type Edit = fn(&mut MetadataV1);

/// A package with sound hashes whose metadata went through `edit`.
fn edited(edit: Edit) -> Vec<u8> {
    let file = bytes();
    let header = Header::parse(&file).unwrap();
    let Metadata::V1(mut metadata) = postcard::from_bytes(header.metadata.of(&file)).unwrap();
    edit(&mut metadata);
    let metadata = postcard::to_stdvec(&Metadata::V1(metadata)).unwrap();
    let blobs = header.blobs.of(&file);
    [&writer::front(0, false, &metadata, blobs.len()), blobs].concat()
}

#[test]
fn every_truncation_is_called_one() {
    let file = bytes();
    for length in 0..file.len() {
        assert_refused(&file[..length], "truncated");
    }
}

#[test]
fn every_flipped_bit_is_found() {
    let mut file = bytes();
    for at in 0..file.len() {
        for bit in 0..8 {
            file[at] ^= 1 << bit;
            assert!(parse(&file).is_err(), "bit {bit} of byte {at} of {}", file.len());
            file[at] ^= 1 << bit;
        }
    }
    assert!(parse(&file).is_ok());
}

#[test]
fn something_else_is_not_a_package() {
    assert_refused(b"\x08\x07\x12\x07pytorch", "not an Adamant package");
    assert_refused(b"PK", "not an Adamant package");
}

#[test]
fn newer_majors_are_refused_by_name() {
    let mut file = bytes();
    file[8..12].copy_from_slice(&[2, 0, 3, 0]);
    let reason = "format 2.3; this Adamant reads up to 1.x: update Adamant";
    assert_refused(&file, reason);
    // Even when the rest of the header is not what it is today.
    assert_refused(&file[..12], reason);
}

#[test]
fn newer_minors_are_read_with_what_they_add() {
    let mut file = bytes();
    file[10] = 7;
    file[12] = 2;
    reseal(&mut file);
    file.extend(b"something");
    assert_eq!(parse(&file).unwrap(), package());
}

#[test]
fn this_minor_has_nothing_to_add() {
    let mut file = bytes();
    file.push(0);
    assert_refused(&file, "1 bytes follow the end");
    file.pop();
    file[12] = 2;
    reseal(&mut file);
    assert_refused(&file, "unknown flags 0x2");
}

#[test]
fn hostile_headers_are_refused() {
    // Offset and length of metadata and blobs.
    for field in [16, 24, 32, 40] {
        for value in [0, 1, 63, 65, 4095, 4097, 1 << 20, 1 << 40, u64::MAX / 2, u64::MAX - 64, u64::MAX] {
            let mut file = bytes();
            file[field..field + 8].copy_from_slice(&u64::to_le_bytes(value));
            reseal(&mut file);
            assert!(parse(&file).is_err(), "{value} at byte {field}");
        }
    }
}

#[test]
fn hostile_tables_are_refused() {
    let cases: [(&str, Edit); 9] = [
        ("overlaps", |m| m.tensors[1].blob.offset = m.tensors[0].blob.offset),
        ("not aligned", |m| m.tensors[1].blob.offset += 4),
        ("beyond the end", |m| m.onnx_skeleton.length = u64::MAX),
        ("beyond the end", |m| m.onnx_skeleton.offset = u64::MAX - 255),
        ("padding", |m| m.onnx_skeleton.length -= 1),
        ("has the shape", |m| m.tensors[0].shape = Shape([1 << 20, 1 << 20, 1 << 20, 1 << 20])),
        ("not the network's parameters", |m| m.tensors[0].name.push('x')),
        ("not the network's parameters", |m| m.network.parameters.truncate(2)),
        ("not the network's parameters", |m| m.network.parameters[0].shape = Shape([1, 1, 1, 8])),
    ];
    for (reason, edit) in cases {
        assert_refused(&edited(edit), reason);
    }
}

#[test]
fn hostile_models_are_refused() {
    let cases: [(&str, Edit); 12] = [
        ("std positive", |m| m.preprocessing.std[0] = 0.0),
        ("std positive", |m| m.preprocessing.std[0] = f32::INFINITY),
        ("mean must be finite", |m| m.preprocessing.mean[0] = f32::NAN),
        ("2 means", |m| m.preprocessing.mean.push(0.0)),
        ("4 labels for 3 classes", |m| m.labels.push("bird".into())),
        ("empty or too large", |m| m.network.input = [1, usize::MAX, usize::MAX]),
        ("empty or too large", |m| m.network.input = [1, 0, 3]),
        ("node 'relu': CrossEntropy is not", |m| m.network.layers[1].op = Op::CrossEntropy(CrossEntropy)),
        ("for 2 image(s) is 1x1x1x2", |m| {
            m.network.layers.truncate(2);
            m.network.layers[1].inputs[0] = Source::Parameter(1);
            m.network.output = Source::Layer(1);
        }),
        ("node 'relu': an amount of", |m| {
            let interior = [usize::MAX; 3];
            m.network.layers[1].op = Op::Pad(Pad { before: [0; 3], after: [0; 3], interior, value: 0.0 });
        }),
        ("node 'fc'", |m| m.network.layers[3].inputs[0] = Source::Layer(3)),
        ("node 'conv'", |m| m.network.layers[0].op = Op::Conv2d(Conv2d { stride: [0, 1], ..Conv2d::LINEAR })),
    ];
    for (reason, edit) in cases {
        assert_refused(&edited(edit), reason);
    }
}

#[test]
fn bytes_after_the_metadata_are_refused() {
    let file = bytes();
    let header = Header::parse(&file).unwrap();
    let metadata = [header.metadata.of(&file), &[0]].concat();
    let blobs = header.blobs.of(&file);
    let longer = [&writer::front(0, false, &metadata, blobs.len()), blobs].concat();
    assert_refused(&longer, "1 bytes follow its end");
}

/// A file whose second and third blob are damaged.
fn two_corrupt() -> Vec<u8> {
    let mut file = bytes();
    let blobs = Header::parse(&file).unwrap().blobs.offset as usize;
    file[blobs + 256] ^= 1;
    file[blobs + 512] ^= 1;
    file
}

#[test]
fn corrupt_tensors_are_all_named() {
    assert_refused(&two_corrupt(), "tensors 'conv.bias', 'fc.weight' corrupt");
}

#[test]
fn verify_lists_sound_and_corrupt_tensors() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.adamant");
    std::fs::write(&path, bytes()).unwrap();
    let found = verify(&path).unwrap();
    assert!(found.is_sound() && found.is_checkpoint);
    assert_eq!(found.format, (1, 0));
    assert_eq!(found.report, Some(report()));
    let check = TensorCheck { name: "fc.weight".into(), shape: Shape([1, 1, 2, 3]), bytes: 24, sound: true };
    assert_eq!(found.tensors[2], check);

    std::fs::write(&path, two_corrupt()).unwrap();
    let found = verify(&path).unwrap();
    assert!(!found.is_sound());
    let sound: Vec<bool> = found.tensors.iter().map(|t| t.sound).collect();
    assert_eq!(sound, [true, false, false, true, true]);

    // Sound hashes do not make a sound model.
    std::fs::write(&path, edited(|m| m.labels.truncate(1))).unwrap();
    assert!(verify(&path).unwrap_err().to_string().contains("1 labels for 3 classes"));
}

/// Splitmix64: the same mutations in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % bound as u64) as usize
    }
}

#[test]
fn random_damage_never_panics() {
    let original = bytes();
    let metadata = Header::parse(&original).unwrap().metadata.length as usize;
    let mut dice = Dice(1);
    let mut read = 0;
    for _ in 0..20_000 {
        let mut file = original.clone();
        for _ in 0..=dice.below(3) {
            // Mostly where lengths and attributes are.
            let at = if dice.below(4) == 0 { dice.below(file.len()) } else { dice.below(LEN + metadata) };
            match dice.below(4) {
                0 => file[at] ^= 1 << dice.below(8),
                1 => file[at] = [0, 1, 0x7F, 0x80, 0xFF][dice.below(5)],
                // A long varint: the largest number that fits, or one that does not.
                2 => {
                    let end = (at + 9).min(file.len());
                    file[at..end].fill(0xFF);
                    if end < file.len() {
                        file[end] = dice.below(3) as u8;
                    }
                }
                _ => {
                    let from = dice.below(file.len());
                    let length = dice.below(16).min(file.len() - at.max(from));
                    file.copy_within(from..from + length, at);
                }
            }
        }
        // Past the hash lies what else must hold.
        if dice.below(8) > 0 {
            reseal(&mut file);
        }
        if let Ok(package) = parse(&file) {
            // What passes all checks is as good as what was built here.
            package.to_bytes("again").unwrap();
            read += 1;
        }
    }
    assert!(read > 100, "only {read} mutants got past the hash: too few to test what follows");
}
