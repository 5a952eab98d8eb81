"""Writes what the common corruptions without random numbers make of two pictures.

    python corruptions.py [output folder, default: this one]

Needs numpy, scipy, scikit-image, opencv-python-headless, pillow and safetensors. The operations and their order
are those of the authors' scripts (make_cifar_c.py and make_imagenet_c.py of hendrycks/robustness); the
parameters come from the table that is typed below, not from the runtime.
"""

import math
import sys
from pathlib import Path

import cv2
import numpy as np
import scipy
import skimage
from PIL import Image
from safetensors.numpy import save_file
from scipy.ndimage import zoom as scizoom
from skimage import color
from skimage.filters import gaussian

OUT = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent

# (CIFAR-10-C, ImageNet-C)
TABLE = {
    "defocus_blur": ([(.3, .4), (.4, .5), (.5, .6), (1, .2), (1.5, .1)],
                     [(3, .1), (4, .5), (6, .5), (8, .5), (10, .5)]),
    "zoom_blur": ([(1.06, .01), (1.11, .01), (1.16, .01), (1.21, .01), (1.26, .01)],
                  [(1.11, .01), (1.16, .01), (1.21, .02), (1.26, .02), (1.31, .03)]),
    "gaussian_blur": ([.4, .6, .7, .8, 1], [1, 2, 3, 4, 6]),
    "brightness": ([.05, .1, .15, .2, .3], [.1, .2, .3, .4, .5]),
    "contrast": ([.75, .5, .4, .3, .15], [.4, .3, .2, .1, .05]),
    "pixelate": ([.95, .9, .85, .75, .65], [.6, .5, .4, .3, .25]),
    "saturate": ([(.3, 0), (.1, 0), (1.5, 0), (2, .1), (2.5, .2)],
                 [(.3, 0), (.1, 0), (2, 0), (5, .1), (20, .2)]),
}


def disk(radius, alias_blur):
    if radius <= 8:
        span, ksize = np.arange(-8, 8 + 1), (3, 3)
    else:
        span, ksize = np.arange(-radius, radius + 1), (5, 5)
    x, y = np.meshgrid(span, span)
    aliased = np.array((x ** 2 + y ** 2) <= radius ** 2, dtype=np.float32)
    aliased /= np.sum(aliased)
    return cv2.GaussianBlur(aliased, ksize=ksize, sigmaX=alias_blur)


def defocus_blur(x, c):
    x = np.array(x) / 255.0
    kernel = disk(*c)
    return np.clip(np.stack([cv2.filter2D(x[..., d], -1, kernel) for d in range(3)], -1), 0, 1) * 255


def clipped_zoom(img, factor):
    h = img.shape[0]
    ch = int(np.ceil(h / factor))
    top = (h - ch) // 2
    img = scizoom(img[top:top + ch, top:top + ch], (factor, factor, 1), order=1)
    trim = (img.shape[0] - h) // 2
    return img[trim:trim + h, trim:trim + h]


def zoom_blur(x, c):
    x = (np.array(x) / 255.0).astype(np.float32)
    factors = np.arange(1, *c)
    out = np.zeros_like(x)
    for factor in factors:
        out += clipped_zoom(x, factor)
    return np.clip((x + out) / (len(factors) + 1), 0, 1) * 255


def gaussian_blur(x, c):
    return np.clip(gaussian(np.array(x) / 255.0, sigma=c, channel_axis=-1), 0, 1) * 255


def brightness(x, c):
    x = color.rgb2hsv(np.array(x) / 255.0)
    x[..., 2] = np.clip(x[..., 2] + c, 0, 1)
    return np.clip(color.hsv2rgb(x), 0, 1) * 255


def contrast(x, c):
    x = np.array(x) / 255.0
    means = np.mean(x, axis=(0, 1), keepdims=True)
    return np.clip((x - means) * c + means, 0, 1) * 255


def pixelate(x, c):
    side = x.size[0]
    small = x.resize((int(side * c), int(side * c)), Image.BOX)
    return np.array(small.resize((side, side), Image.BOX))


def saturate(x, c):
    x = color.rgb2hsv(np.array(x) / 255.0)
    x[..., 1] = np.clip(x[..., 1] * c[0] + c[1], 0, 1)
    return np.clip(color.hsv2rgb(x), 0, 1) * 255


def picture(side):
    """Smooth colours with edges and grain."""
    rng = np.random.default_rng(side)
    y, x = np.mgrid[0:side, 0:side] / side
    planes = [np.sin(6 * x + 2 * y), np.cos(5 * y - x), np.sin(4 * x * y + 1)]
    levels = np.stack(planes, -1) * 70 + 120 + rng.normal(0, 12, (side, side, 3))
    levels[side // 4:side // 2, side // 3:side // 3 * 2] = [240, 30, 90]
    return Image.fromarray(np.clip(levels, 0, 255).astype(np.uint8))


tensors = {}
for which, side in enumerate((32, 72)):
    image = picture(side)
    tensors[f"{side}.image"] = np.array(image).transpose(2, 0, 1).astype(np.float32)
    for name, tables in TABLE.items():
        rows = [np.uint8(globals()[name](image, c)).transpose(2, 0, 1) for c in tables[which][::2]]
        # Severities 1, 3 and 5 of four rows are enough.
        tensors[f"{side}.{name}"] = np.stack(rows)[:, :, ::side // 4].astype(np.float32)
versions = f"scipy {scipy.__version__}, scikit-image {skimage.__version__}, opencv {cv2.__version__}"
save_file({k: np.ascontiguousarray(v).astype(np.float32) for k, v in tensors.items()},
          OUT / "corruptions.safetensors", metadata={"generator": versions})
