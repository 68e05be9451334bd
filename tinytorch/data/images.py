"""Fashion-MNIST (28 x 28) and the digits (8 x 8)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tinytorch.data import files

FASHION_CLASSES = (
    "T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip
_FULL = Path("/usr/share/datasets/fashion-mnist")  # where Debian's package puts all 60,000 + 10,000


class Images(NamedTuple):
    """`images` float32 (N, 1, H, W) in 0 ... 1; `labels` int64 (N,), numbers of the class names in `classes`."""

    images: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]


def fashion_mnist(split: str) -> Images:
    """Load Fashion-MNIST.

    Parameters
    ----------
    split
        "test": all 10,000 test images. "train": 10,000 of the training images, 1,000 of each class. Both ship with the
        package. "train-full": all 60,000 training images, from Debian's package `dataset-fashion-mnist`, or from the
        folder that the environment variable FASHION_MNIST names (with the four original files).

    Raises
    ------
    ValueError
        If there is no such split.
    DataError
        If a file is missing or damaged: says what to run.
    """
    if split == "train-full":
        folder = Path(os.environ.get("FASHION_MNIST", _FULL))
        names = ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz")
    elif split in ("train", "test"):
        folder = files.FOLDER
        names = (f"fashion-{split}-images.xz", f"fashion-{split}-labels.xz")
    else:
        raise ValueError(f'split must be "test", "train" or "train-full", not {split!r}')
    pixels, labels = (files.parse_idx(files.read("fashion_mnist", name, folder)) for name in names)
    return _as_images(pixels, labels, 255, FASHION_CLASSES)


def digits() -> Images:
    """Load the 1,797 handwritten digits of 8 x 8 pixels, for tests that must be quick.

    Raises
    ------
    DataError
        If a file is missing or damaged: says what to run.
    """
    pixels, labels = (files.parse_idx(files.read("digits", f"digits-{part}.xz")) for part in ("images", "labels"))
    return _as_images(pixels, labels, 16, tuple("0123456789"))


def _as_images(pixels: np.ndarray, labels: np.ndarray, white: int, classes: tuple[str, ...]) -> Images:
    return Images(pixels[:, None].astype(np.float32) / np.float32(white), labels.astype(np.int64), classes)
