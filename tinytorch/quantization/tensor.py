"""`QuantizedTensor`: codes, and what they mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from tinytorch.quantization.affine import code_range, dequantize, quantize_per_tensor


class QParams(NamedTuple):
    """What codes mean: code c stands for (c - zero_point) * scale, and c lies in 0 ... 2^bits - 1."""

    scale: float
    zero_point: int
    bits: int = 8

    @property
    def highest(self) -> int:
        """The largest code."""
        return code_range(self.bits, symmetric=False)[1]


@dataclass(frozen=True, eq=False)
class QuantizedTensor:
    """`codes`, uint8 of any shape, and their meaning, `qparams`."""

    codes: np.ndarray
    qparams: QParams

    @classmethod
    def of(cls, x: np.ndarray, qparams: QParams) -> QuantizedTensor:
        """Round floats to codes; those beyond the range saturate. A ValueError if x holds NaN."""
        scale, zero_point, bits = qparams
        return cls(quantize_per_tensor(x, np.float32(scale), np.int32(zero_point), bits=bits), qparams)

    def dequantize(self) -> np.ndarray:
        """Return the numbers that the codes stand for, float32."""
        return dequantize(self.codes, np.float32(self.qparams.scale), np.int32(self.qparams.zero_point))

    @property
    def shape(self) -> tuple[int, ...]:
        """The length of each axis."""
        return self.codes.shape

    @property
    def nbytes(self) -> int:
        """Bytes of the codes: one each."""
        return self.codes.nbytes

    def __repr__(self) -> str:
        scale, zero_point, bits = self.qparams
        return f"QuantizedTensor({self.shape}, scale={scale:.4g}, zero_point={zero_point}, bits={bits})"
