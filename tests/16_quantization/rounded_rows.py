"""What layers that round their input row by row are defined as, in NumPy's integers."""

import numpy as np

from tinytorch import nn

TINY = np.finfo(np.float32).tiny


def linear(inputs=40, outputs=24, bias=True, seed=0):
    return nn.Linear(inputs, outputs, bias, np.random.default_rng(seed))


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@np.errstate(over="ignore")
def defined(layer, x):
    """Work it out in NumPy's integers of 64 bits: scales, codes, sums, and float32 from left to right."""
    rows = x.reshape(-1, x.shape[-1])
    out = np.empty((len(rows), layer.out_features), np.float32)
    weight, weight_scale = layer.weight.astype(np.int64), layer.weight_scale
    for row, to in zip(rows, out, strict=True):
        scale = max(np.float32(np.abs(row).max(initial=0)) / np.float32(127), TINY)
        codes = np.rint(row / scale).astype(np.int64)
        assert np.abs(codes).max(initial=0) <= 127
        to[:] = (weight @ codes).astype(np.float32) * weight_scale * scale
    if layer.bias is not None:
        out += layer.bias
    return out.reshape(*x.shape[:-1], layer.out_features)


def same_bits(a, b):
    np.testing.assert_array_equal(a.view(np.uint32), b.view(np.uint32))
