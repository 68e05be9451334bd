"""A float32 number as a whole number of few bits: x is about scale * (code - zero_point), and 0 is so exactly.

Sources: Jacob et al., "Quantization and training of neural networks for efficient integer-arithmetic-only inference"
(2018), section 2.1; Nagel et al., "A white paper on neural network quantization" (2021), section 2.2.
"""

from __future__ import annotations

import numpy as np
from numpy.lib.array_utils import normalize_axis_index

from tinytorch.kernels.int8 import numbers
from tinytorch.nn.finite import check_finite, refuse

Scale = np.float32 | np.ndarray
ZeroPoint = np.int32 | np.ndarray

LARGEST = np.finfo(np.float32).max
SMALLEST_NORMAL = np.finfo(np.float32).tiny


def code_range(bits: int, symmetric: bool) -> tuple[int, int]:
    """Return the smallest and the largest code of 2 to 8 bits.

    Affine codes are unsigned. Symmetric ones are signed, without the lowest number of two's complement, so that -x
    has a code whenever x has one.

    Raises
    ------
    ValueError
        If `bits` is no whole number from 2 to 8.

    Examples
    --------
    >>> code_range(8, symmetric=False), code_range(8, symmetric=True), code_range(2, symmetric=True)
    ((0, 255), (-127, 127), (-1, 1))
    """
    if not isinstance(bits, int | np.integer) or not 2 <= bits <= 8:
        raise ValueError(f"bits must be a whole number from 2 to 8, got {bits!r}")
    largest = 2 ** (int(bits) - 1) - 1
    return (-largest, largest) if symmetric else (0, 2 * largest + 1)


def choose_qparams(
    x: np.ndarray, *, bits: int = 8, symmetric: bool = False, axis: int | None = None
) -> tuple[Scale, ZeroPoint]:
    """Return the scale and zero point with which the codes reach from the smallest to the largest value of x.

    Parameters
    ----------
    x
        Floats of any shape: at least one, all finite.
    bits, symmetric
        Which codes: see `code_range`.
    axis
        If given, every channel along this axis gets its own.

    Returns
    -------
    tuple
        As `qparams_of_range`: of the tensor, or (C,) of its channels.

    Raises
    ------
    TypeError
        If x holds no floats.
    ValueError
        If x is empty, or a value is NaN or infinite: the message says how many are, and where the first one is. Or if
        there are no such codes.
    """
    x = finite_values(x)
    others = None
    if axis is not None:
        channel = normalize_axis_index(axis, x.ndim)
        others = tuple(i for i in range(x.ndim) if i != channel)
    return qparams_of_range(x.min(axis=others), x.max(axis=others), bits=bits, symmetric=symmetric)


def qparams_of_range(
    low: float | np.ndarray, high: float | np.ndarray, *, bits: int = 8, symmetric: bool = False
) -> tuple[Scale, ZeroPoint]:
    """Return the scale (float32) and zero point (int32) with which the codes reach from low to high.

    The range is extended until it holds 0, and for symmetric codes until it is as wide on both sides. The scale is
    rounded up, so that no value of the range lies further than scale / 2 from the outermost codes. It is never
    smaller than the smallest normal float32, and 1 where the range is nothing but 0.

    Parameters
    ----------
    low, high
        Numbers, or arrays of one shape: then so are the results.

    Raises
    ------
    ValueError
        If low is above high, or one of them is no finite float32.
    """
    lowest, highest = code_range(bits, symmetric)
    start, end = np.broadcast_arrays(np.asarray(low, np.float64), np.asarray(high, np.float64))
    wrong = ~((start >= -LARGEST) & (start <= end) & (end <= LARGEST))
    if wrong.any():
        pair = f"{start[wrong][0]:g} to {end[wrong][0]:g}"
        raise ValueError(f"a range reaches from a finite float32 to one that is not below it, got {pair}")
    start, end = np.asarray(np.minimum(start, 0.0)), np.asarray(np.maximum(end, 0.0))
    # In float64: end - start may be twice what float32 can hold.
    exact = np.asarray(np.maximum(-start, end) / highest if symmetric else (end - start) / (highest - lowest))
    scale = exact.astype(np.float32)
    scale = np.where(scale < exact, np.nextafter(scale, LARGEST), scale)
    scale = np.where(exact > 0, np.maximum(scale, SMALLEST_NORMAL), np.float32(1.0))
    zero_point = np.asarray(0 * start if symmetric else np.rint(-start / scale)).astype(np.int32)
    return scale[()], zero_point[()]


def quantize_per_tensor(
    x: np.ndarray, scale: float | Scale, zero_point: int | ZeroPoint, *, bits: int = 8, symmetric: bool = False
) -> np.ndarray:
    """Return the codes clamp(rint(x / scale) + zero_point), one byte each: uint8, or int8 if symmetric.

    x is divided in float32, not multiplied by 1 / scale, and halves go to the even number: so does ONNX's
    QuantizeLinear. Values beyond the range saturate, infinite ones too. Values within it come back from `dequantize`
    with an error of at most scale / 2, and what float32 rounds on the way, 2^-23 abs(x).

    Raises
    ------
    TypeError
        If x holds no floats.
    ValueError
        If a value is NaN, the scale is not a positive finite number, or the zero point is no code. That of symmetric
        codes is 0.

    Examples
    --------
    >>> x = np.array([-1.0, 0.0, 0.3, 2.0], np.float32)
    >>> scale, zero_point = choose_qparams(x)
    >>> codes = quantize_per_tensor(x, scale, zero_point)
    >>> codes, dequantize(codes, scale, zero_point).round(3)
    (array([  0,  85, 111, 255], dtype=uint8), array([-1.   ,  0.   ,  0.306,  2.   ], dtype=float32))
    """
    return _quantize(x, scale, zero_point, None, bits, symmetric)


def quantize_per_channel(
    x: np.ndarray, scales: np.ndarray, zero_points: np.ndarray, axis: int, *, bits: int = 8, symmetric: bool = True
) -> np.ndarray:
    """Return the codes of x as `quantize_per_tensor`, each channel along `axis` with its own scale and zero point (C,).

    Raises
    ------
    TypeError, ValueError
        As there; and if there is not one scale and one zero point to each channel.
    """
    return _quantize(x, scales, zero_points, axis, bits, symmetric)


def dequantize(
    codes: np.ndarray, scale: float | Scale, zero_point: int | ZeroPoint, axis: int | None = None
) -> np.ndarray:
    """Return what the codes stand for, float32: scale * (codes - zero_point), never beyond the largest float32.

    Parameters
    ----------
    codes
        Whole numbers of any integer dtype and shape.
    scale, zero_point
        Of the tensor; or (C,) of its channels along `axis`, if that is given.

    Raises
    ------
    TypeError
        If the codes or a zero point are no whole numbers.
    ValueError
        If the scale is not a positive finite number, or there is not one scale and one zero point to each channel.
    """
    codes = np.asarray(codes)
    if codes.dtype.kind not in "iu":
        raise TypeError(f"codes are whole numbers, got {codes.dtype}")
    limits = np.iinfo(codes.dtype)
    scale, zero_point = _shaped(scale, zero_point, codes.shape, axis, limits.min, limits.max)
    return numbers(codes, scale, zero_point)


def fake_quantize(x: np.ndarray, bits: int, *, symmetric: bool = True, axis: int | None = None) -> np.ndarray:
    """Return what numbers of so many bits can say of x: its values to codes, over its own range, and back; float32.

    Arguments and errors, a TypeError or ValueError, are those of `choose_qparams`; the result has x's shape.

    Examples
    --------
    >>> fake_quantize(np.array([-1.0, -0.4, 0.1, 0.6], np.float32), bits=3).round(3)
    array([-1.   , -0.333,  0.   ,  0.667], dtype=float32)
    """
    scale, zero_point = choose_qparams(x, bits=bits, symmetric=symmetric, axis=axis)
    return dequantize(_quantize(x, scale, zero_point, axis, bits, symmetric), scale, zero_point, axis)


def finite_values(x: np.ndarray) -> np.ndarray:
    """Return x as float32 if it has a range: floats, at least one, all finite. Else an error says what is wrong."""
    x = _as_float32(x)
    if x.size == 0:
        raise ValueError(f"x of shape {x.shape} is empty: a range takes at least one value")
    check_finite(x, "x")
    return x


def _quantize(
    x: np.ndarray, scale: float | Scale, zero_point: int | ZeroPoint, axis: int | None, bits: int, symmetric: bool
) -> np.ndarray:
    lowest, highest = code_range(bits, symmetric)
    x = _as_float32(x)
    refuse(np.isnan(x), "x is NaN")
    zero = (0, 0) if symmetric else (lowest, highest)
    scale, zero_point = _shaped(scale, zero_point, x.shape, axis, *zero)
    with np.errstate(over="ignore"):  # what leaves float32 saturates like the rest
        codes = np.rint(x / scale) + zero_point
    return np.asarray(np.clip(codes, lowest, highest)).astype(np.int8 if symmetric else np.uint8)


def _shaped(
    scale: float | Scale,
    zero_point: int | ZeroPoint,
    shape: tuple[int, ...],
    axis: int | None,
    lowest: int,
    highest: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Return both as float32 of a shape that broadcasts over an array of this shape, once they are found right."""
    channel = None if axis is None else normalize_axis_index(axis, len(shape))
    expected = () if channel is None else (shape[channel],)
    with np.errstate(over="ignore"):
        scale, zero_point = np.asarray(scale, np.float32), np.asarray(zero_point)
    for name, given in (("scale", scale), ("zero point", zero_point)):
        if given.shape != expected:
            wanted = "a tensor" if channel is None else f"each of {shape[channel]} channels of axis {channel}"
            raise ValueError(f"there must be one {name} for {wanted}, got shape {given.shape}")
    if not np.all((scale > 0) & (scale <= LARGEST)):
        raise ValueError(f"a scale must be a positive finite float32, got {scale}")
    if zero_point.dtype.kind not in "iu":
        raise TypeError(f"a zero point is a whole number, got {zero_point.dtype}")
    if not np.all((lowest <= zero_point) & (zero_point <= highest)):
        raise ValueError(f"a zero point of these codes lies in {lowest} ... {highest}, got {zero_point}")
    zero_point = zero_point.astype(np.float32)
    if channel is None:
        return scale, zero_point
    spread = [-1 if i == channel else 1 for i in range(len(shape))]
    return scale.reshape(spread), zero_point.reshape(spread)


def _as_float32(x: np.ndarray) -> np.ndarray:
    x = np.asarray(x)
    if x.dtype.kind != "f":
        raise TypeError(f"x must hold floats, got {x.dtype}: convert it with astype(np.float32)")
    with np.errstate(over="ignore"):  # float64 beyond float32 turns infinite
        return x.astype(np.float32, copy=False)
