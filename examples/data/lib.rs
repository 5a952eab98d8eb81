//! What the demo and the examples work on: 5,000 of MNIST's digits, and a small network that reads them.
//!
//! Embedded, so that a program which shows something needs no other file.

/// A ResNet of 8 layers as ONNX: pixels in [0, 1] to the logits of ten digits.
pub const MODEL: &[u8] = include_bytes!("digits_resnet8.onnx");

/// The files of a folder in MNIST's format, by name.
pub const DIGITS: [(&str, &[u8]); 4] = [
    ("train-images-idx3-ubyte.gz", include_bytes!("digits/train-images-idx3-ubyte.gz")),
    ("train-labels-idx1-ubyte.gz", include_bytes!("digits/train-labels-idx1-ubyte.gz")),
    ("t10k-images-idx3-ubyte.gz", include_bytes!("digits/t10k-images-idx3-ubyte.gz")),
    ("t10k-labels-idx1-ubyte.gz", include_bytes!("digits/t10k-labels-idx1-ubyte.gz")),
];
