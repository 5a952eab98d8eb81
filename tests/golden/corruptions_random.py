"""Writes what the common corruptions with random numbers make of a picture, from the runtime's own numbers.

    python corruptions_random.py [output folder, default: this one]

Needs numpy, scipy and safetensors, and the picture in corruptions.safetensors. The operations and their order are
those of the authors' script (make_cifar_c.py of hendrycks/robustness); where they ask NumPy for random numbers,
these come from the counter-based generator of runtime/src/random.rs, one draw after the other. Not here: shot
noise, whose Poisson numbers are made otherwise, and what differs from the authors anyway (motion blur, snow, frost,
spatter, JPEG).
"""

import sys
from pathlib import Path

import numpy as np
import scipy
from safetensors.numpy import load_file, save_file
from scipy.ndimage import gaussian_filter, map_coordinates

HERE = Path(__file__).resolve().parent
OUT = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE
SEED, INDEX = 7, 3
# Place in the benchmark's list, and CIFAR-10-C's parameters at severities 1, 3 and 5.
TABLE = {
    "gaussian_noise": (0, [.04, .08, .1]),
    "impulse_noise": (2, [.01, .03, .07]),
    "glass_blur": (4, [(.05, 1, 1), (.4, 1, 1), (.4, 1, 2)]),
    "fog": (9, [(.2, 3), (.75, 2.5), (1.5, 1.75)]),
    "elastic_transform": (12, [(0, 0, .08), (.08, .06, .06), (.1, .03, .03)]),
    "speckle_noise": (15, [.06, .12, .2]),
}


def threefry(key, counter):
    """Threefry-2x32-20 (Salmon et al., 2011)."""
    mask, rotations = 0xFFFFFFFF, [13, 15, 26, 6, 17, 29, 16, 24]
    keys = [key[0], key[1], 0x1BD11BDA ^ key[0] ^ key[1]]
    x, y = (counter[0] + keys[0]) & mask, (counter[1] + keys[1]) & mask
    for i in range(20):
        x = (x + y) & mask
        r = rotations[i % 8]
        y = (((y << r) | (y >> (32 - r))) & mask) ^ x
        if i % 4 == 3:
            j = i // 4 + 1
            x, y = (x + keys[j % 3]) & mask, (y + keys[(j + 1) % 3] + j) & mask
    return x, y


class Draws:
    def __init__(self, corruption, severity):
        self.key = threefry(threefry((SEED, 0), (8, 0)), (corruption, severity))
        self.position = 0

    def unit(self):
        a, b = threefry(self.key, (INDEX, self.position))
        self.position += 1
        return ((a << 32 | b) >> 11) / 2.0**53

    def uniform(self, low, high):
        return low + (high - low) * self.unit()

    def normal(self):
        radius = np.sqrt(-2 * np.log(1 - self.unit()))
        return radius * np.cos(2 * np.pi * self.unit())

    def normals(self, shape):
        return np.array([self.normal() for _ in range(int(np.prod(shape)))]).reshape(shape)


def gaussian_noise(x, c, draws):
    return x + c * draws.normals(x.shape)


def speckle_noise(x, c, draws):
    return x + x * c * draws.normals(x.shape)


def impulse_noise(x, c, draws):
    """`skimage.util.random_noise` with salt and pepper in equal parts."""
    out = x.copy().ravel()
    for i in range(out.size):
        hit, salt = draws.unit() < c, draws.unit() < 0.5
        if hit:
            out[i] = 1.0 if salt else 0.0
    return out.reshape(x.shape)


def smooth(x, sigma):
    return np.stack([gaussian_filter(plane, sigma, mode="nearest", truncate=4) for plane in x])


def glass_blur(x, c, draws):
    sigma, far, rounds = c
    x = np.uint8(np.clip(smooth(x, sigma), 0, 1) * 255 + 1e-9).transpose(1, 2, 0).copy()
    side = x.shape[0]
    for _ in range(rounds):
        for row in range(side - far, far, -1):
            for column in range(side - far, far, -1):
                dx, dy = (-far + int(draws.unit() * 2 * far) for _ in range(2))
                there = row + dy, column + dx
                # The authors' exchange of two views, with all that NumPy makes of it.
                x[row, column], x[there] = x[there], x[row, column]
    return smooth(x.transpose(2, 0, 1) / 255.0, sigma)


def heights(side, decay, draws):
    """The diamond-square algorithm on a torus, in [0, 1]; the two diamonds of a cell are drawn in turn."""
    grid, step, wibble = np.zeros((side, side)), side, 100.0
    while step >= 2:
        half = step // 2
        corners = grid[::step, ::step]
        sums = corners + np.roll(corners, -1, 0)
        sums = sums + np.roll(sums, -1, 1)
        for (i, j), total in np.ndenumerate(sums):
            grid[i * step + half, j * step + half] = total / 4 + wibble * draws.uniform(-wibble, wibble)
        middles = grid[half::step, half::step]
        across = middles + np.roll(middles, 1, 0) + corners + np.roll(corners, -1, 1)
        down = middles + np.roll(middles, 1, 1) + corners + np.roll(corners, -1, 0)
        for i, j in np.ndindex(across.shape):
            grid[i * step, j * step + half] = across[i, j] / 4 + wibble * draws.uniform(-wibble, wibble)
            grid[i * step + half, j * step] = down[i, j] / 4 + wibble * draws.uniform(-wibble, wibble)
        step, wibble = half, wibble / decay
    grid -= grid.min()
    return grid / grid.max()


def fog(x, c, draws):
    most = x.max()
    return (x + c[0] * heights(x.shape[1], c[1], draws)) * most / (most + c[0])


def elastic_transform(x, c, draws):
    side = x.shape[1]
    far, sigma, affine = (v * side for v in c)
    middle, square = side // 2, side // 3
    before = np.array([[1, 1], [1, -1], [-1, -1]]) * square + middle
    after = before + np.array([[draws.uniform(-affine, affine) for _ in range(2)] for _ in range(3)])
    # What takes (x, y, 1) of the new picture to (x, y) of the old one.
    back = np.linalg.solve(np.c_[after, np.ones(3)], before).T
    rows, columns = np.mgrid[0:side, 0:side].astype(float)
    at = np.tensordot(back, np.stack([columns, rows, np.ones_like(rows)]), 1)
    x = np.stack([map_coordinates(plane, [at[1], at[0]], order=1, mode="mirror") for plane in x])
    if far == 0:
        return x
    field = lambda: far * gaussian_filter(
        np.array([draws.uniform(-1, 1) for _ in range(side * side)]).reshape(side, side),
        sigma, mode="reflect", truncate=3)
    dx, dy = field(), field()
    return np.stack([map_coordinates(plane, [rows + dy, columns + dx], order=1, mode="reflect") for plane in x])


image = load_file(HERE / "corruptions.safetensors")["32.image"]
tensors = {}
for name, (place, parameters) in TABLE.items():
    rows = []
    for severity, c in zip((1, 3, 5), parameters):
        found = globals()[name](image.astype(np.float64) / 255, c, Draws(place, severity))
        # Four rows of each plane are enough.
        rows.append(np.uint8(np.clip(found, 0, 1) * 255 + 1e-9)[:, ::8])
    tensors[name] = np.ascontiguousarray(np.stack(rows)).astype(np.float32)
save_file(tensors, OUT / "corruptions_random.safetensors",
          metadata={"generator": f"numpy {np.__version__}, scipy {scipy.__version__}"})
