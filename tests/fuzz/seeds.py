"""Writes the small sound files that fuzzing starts from, where no fixture is one: `python tests/fuzz/seeds.py`.

Files that are there stay: findings are added to the same folders by hand.
"""

import gzip
import io
import pathlib
import zlib

import numpy
import onnx
from onnx import helper
from PIL import Image

CORPUS = pathlib.Path(__file__).parent / "corpus"
GENERATOR = numpy.random.default_rng(1)


def write(target, name, data):
    path = CORPUS / target / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        path.write_bytes(data)


def noise(*shape):
    return GENERATOR.integers(0, 256, shape, dtype=numpy.uint8)


def idx(array):
    dims = b"".join(d.to_bytes(4, "big") for d in array.shape)
    return bytes([0, 0, 8, array.ndim]) + dims + array.tobytes()


def npy(array):
    out = io.BytesIO()
    numpy.save(out, array)
    return out.getvalue()


def element(kind, data):
    """A part of a MATLAB 5 file; up to four bytes go in the place of their length."""
    if 0 < len(data) <= 4:
        return (kind | len(data) << 16).to_bytes(4, "little") + data.ljust(4, b"\0")
    return kind.to_bytes(4, "little") + len(data).to_bytes(4, "little") + data + bytes(-len(data) % 8)


def mat(compressed, **arrays):
    """A MATLAB 5 file of bytes or doubles."""
    out = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM"
    for name, array in arrays.items():
        dims = numpy.array(array.shape, numpy.int32).tobytes()
        kind = {"uint8": 2, "float64": 9}[array.dtype.name]
        flags = element(6, bytes([9 if kind == 2 else 6, 0, 0, 0, 0, 0, 0, 0]))
        body = flags + element(5, dims) + element(1, name.encode()) + element(kind, array.tobytes("F"))
        matrix = element(14, body)
        if compressed:
            packed = zlib.compress(matrix, 9)
            out += (15).to_bytes(4, "little") + len(packed).to_bytes(4, "little") + packed
        else:
            out += matrix
    return out


def computed(count, copies):
    """A linear classifier whose bias is the start of a computed constant of `count` numbers, copied again and again."""
    def constant(name, array):
        return onnx.numpy_helper.from_array(array, name)

    nodes = [helper.make_node("ConstantOfShape", ["count"], ["c0"])]
    nodes += [helper.make_node("Identity", [f"c{i}"], [f"c{i + 1}"]) for i in range(copies)]
    nodes += [
        helper.make_node("Slice", [f"c{copies}", "zero", "two"], ["bias"]),
        helper.make_node("Flatten", ["x"], ["flat"]),
        helper.make_node("Gemm", ["flat", "weight", "bias"], ["y"]),
    ]
    stored = [
        constant("count", numpy.array([count])), constant("zero", numpy.array([0])), constant("two", numpy.array([2])),
        constant("weight", numpy.ones((3, 2), numpy.float32)),
    ]
    floats = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        nodes, "computed", [helper.make_tensor_value_info("x", floats, ["n", 3, 1, 1])],
        [helper.make_tensor_value_info("y", floats, ["n", 2])], stored,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString()


def main():
    write("onnx", "computed-small.onnx", computed(8, 2))
    write("onnx", "computed-large.onnx", computed((1 << 26) - 1, 0))
    write("onnx", "computed-copies.onnx", computed(1 << 19, 300))
    # Pixels that repeat: small in the repository.
    image = bytes(range(256)) * 12
    write("cifar", "one-of-ten", bytes([7]) + image)
    write("cifar", "one-of-hundred", bytes([3, 77]) + image)
    write("cifar", "label-out-of-range", bytes([200]) + image)
    write("cifar", "short", bytes([7]) + image[:100])
    write("mnist", "images", idx(noise(2, 5, 4)))
    write("mnist", "images.gz", gzip.compress(idx(noise(2, 5, 4)), mtime=0))
    write("mnist", "labels", idx(numpy.array([1, 9], numpy.uint8)))
    write("mnist", "labels.gz", gzip.compress(idx(numpy.array([1, 9], numpy.uint8)), mtime=0))
    write("mnist", "bomb.gz", gzip.compress(bytes([0, 0, 8, 3]) + bytes([0, 0, 64, 0]) * 3 + bytes(1 << 21), mtime=0))
    pixels, labels = noise(4, 4, 3, 2), numpy.array([[1], [10]], numpy.uint8)
    write("svhn", "compressed.mat", mat(True, X=pixels, y=labels))
    write("svhn", "plain.mat", mat(False, X=pixels, y=labels))
    write("svhn", "doubles.mat", mat(True, X=pixels, y=labels.astype(numpy.float64)))
    header = mat(False, X=pixels)[:128]
    bomb = zlib.compress(bytes(1 << 22), 9)
    write("svhn", "bomb.mat", header + (15).to_bytes(4, "little") + len(bomb).to_bytes(4, "little") + bomb)
    write("npy", "labels-i8.npy", npy(numpy.array([1, 2, 3, 4, 5], numpy.int64)))
    write("npy", "labels-u1.npy", npy(numpy.array([1, 2, 3, 4, 5], numpy.uint8)))
    repeated = numpy.tile(numpy.arange(256, dtype=numpy.uint8), 60).reshape(5, 32, 32, 3)
    write("npy", "images.npy", npy(repeated))
    rgb, grey = Image.fromarray(noise(6, 7, 3)), Image.fromarray(noise(6, 7))
    wide = Image.fromarray(numpy.zeros((2, 300), numpy.uint8))
    for name, picture, options in [
        ("rgb.png", rgb, {}), ("grey.png", grey, {}), ("wide.png", wide, {}), ("palette.png", rgb.quantize(8), {}),
        ("rgb.jpg", rgb, {"quality": 80}), ("progressive.jpg", rgb, {"progressive": True}), ("rgb.bmp", rgb, {}),
        ("lossless.webp", rgb, {"lossless": True}), ("lossy.webp", rgb, {}), ("rgb.tiff", rgb, {}),
        ("deflate.tiff", rgb, {"compression": "tiff_deflate"}), ("rgb.ppm", rgb, {}), ("grey.pgm", grey, {}),
    ]:
        out = io.BytesIO()
        kind = {"jpg": "JPEG", "pgm": "PPM", "tiff": "TIFF"}.get(name.split(".")[1], name.split(".")[1].upper())
        picture.save(out, kind, **options)
        write("picture", name, out.getvalue())
    # A small file that announces more pixels than it can hold.
    out = io.BytesIO()
    Image.new("L", (16, 16)).save(out, "PNG")
    png = bytearray(out.getvalue())
    png[16:24] = (16000).to_bytes(4, "big") * 2
    png[29:33] = zlib.crc32(png[12:29]).to_bytes(4, "big")
    write("picture", "large-header.png", bytes(png))
    write("recipe", "wrong.toml", b"name = \"x\"\nepochs = -1\n")
    write("recipe", "partial.toml", b"layers = \"last:2\"\n")
    write("recipe", "not-text", bytes([0xff, 0xfe, 0x00]))


if __name__ == "__main__":
    main()
