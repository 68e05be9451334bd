"""Linear layers in whole numbers whose input is rounded when it comes: each row of numbers has a scale of its own.

    scale = largest |x| of the row / 127                                what code 1 stands for
    code = round(x / scale)                                             -127 ... 127, to even at ties
    y = (sum of code * weight) * weight_scale * scale + bias            the sum in whole numbers, exactly

The rest is float32, from left to right, so that every backend gives the same bits. Codes are stored as bytes from 1 to
255, 128 being zero, for the kernels of `int8.py` take unsigned ones.

Source: Dettmers et al., "LLM.int8(): 8-bit matrix multiplication for transformers at scale" (2022), section 2.2,
vector-wise quantization.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from tinytorch.kernels import int8
from tinytorch.kernels.backend import compiled, kernel

ZERO, MOST = 128, 127
SMALLEST = np.finfo(np.float32).tiny


class Product:
    """Weights int8 (O, I) and their scales (O,), float32 above zero, made ready once for many inputs.

    A TypeError or ValueError says what does not fit; so does one if a sum could leave 32 bits. What is made ready is a
    copy: changed weights need another product.
    """

    def __init__(self, weight: np.ndarray, weight_scale: np.ndarray) -> None:
        none = np.zeros(len(weight), np.int32)
        self.layer = int8.Linear(weight, none, weight_scale, input_zero_point=ZERO, floats=True)
        self.outputs, self.inputs = weight.shape
        self._packed = dict[str, np.ndarray]()

    @cached_property
    def network(self) -> int8.Network:
        """What multiplies codes with the weights."""
        return int8.Network([self.layer], (self.inputs,))

    def packed(self, path: str) -> np.ndarray:
        """Return weights, sums and scales as the compiled kernels of a path read them."""
        if path not in self._packed:
            self._packed[path] = compiled("dynamic").pack(self.layer, path)
        return self._packed[path]

    def __reduce__(self) -> tuple[Any, ...]:
        return Product, (self.layer.weight, self.layer.multiplier)  # a copy is made ready where it is


def round_rows(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return codes uint8 of x (N, I) and the scale of each row, float32 (N,).

    A row of zeros has the smallest normal scale, and so have rows whose largest number is tiny. A ValueError if a
    number is NaN or infinite.
    """
    largest = np.abs(x).max(axis=1, initial=0)
    if not np.isfinite(largest).all():
        raise no_code(x)
    scales = np.maximum(largest / np.float32(MOST), SMALLEST)
    codes = np.rint(x / scales[:, None])
    codes += np.float32(ZERO)
    return codes.astype(np.uint8), scales


def no_code(x: np.ndarray) -> ValueError:
    """Return the error for an x, of any shape, that holds NaN or infinite numbers: it says how many."""
    wrong = np.count_nonzero(~np.isfinite(x))
    return ValueError(f"{wrong} of {x.size} numbers that come in are NaN or infinite: they have no code")


@kernel
def dynamic_linear(x: np.ndarray, product: Product, bias: np.ndarray | None) -> np.ndarray:
    """Return y float32 (N, O) for x float32 (N, I). A ValueError if a number is NaN or infinite."""
    codes, scales = round_rows(x)
    y = product.network(codes)
    with np.errstate(over="ignore"):  # what leaves float32 is infinite, as it is in a float layer
        y *= scales[:, None]
        if bias is not None:
            y += bias
    return y


@dynamic_linear.naive
def dynamic_linear_naive(x: np.ndarray, product: Product, bias: np.ndarray | None) -> np.ndarray:
    """Work number by number."""
    weight, weight_scale = product.layer.weight, product.layer.multiplier
    y = np.empty((len(x), product.outputs), np.float32)
    for r, row in enumerate(x):
        if not np.isfinite(row).all():
            raise no_code(x)
        scale = max(max(abs(value) for value in row) / np.float32(MOST), SMALLEST)
        codes = [round(float(value / scale)) for value in row]
        for o in range(product.outputs):
            total = 0
            for i, code in enumerate(codes):
                total += code * int(weight[o, i])
            with np.errstate(over="ignore"):
                y[r, o] = np.float32(total) * weight_scale[o] * scale
                if bias is not None:
                    y[r, o] += bias[o]
    return y
