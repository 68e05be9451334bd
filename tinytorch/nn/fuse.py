"""Batch norm in evaluation is one multiplication and one addition for each channel: the layer before it can do both."""

from __future__ import annotations

import numpy as np

from tinytorch.nn.image import Conv2d
from tinytorch.nn.normalization import BatchNorm2d


def fold_batch_norm(conv: Conv2d, norm: BatchNorm2d | None) -> tuple[np.ndarray, np.ndarray]:
    """Return weight (O, C, kh, kw) and bias (O,) of a convolution that also does what `norm` does in evaluation.

    Source: Jacob et al., "Quantization and training of neural networks for efficient integer-arithmetic-only inference"
    (2018), section 3.2.

    A TypeError if `conv` is no convolution with weights in float32, a ValueError if the channels differ.
    """
    if not isinstance(conv, Conv2d):
        raise TypeError(
            f"fold_batch_norm takes an nn.Conv2d, not {type(conv).__name__}: fold before it is made sparse or quantized"
        )
    weight = conv.weight.data
    bias = np.zeros(len(weight), np.float32) if conv.bias is None else conv.bias.data
    if norm is None:
        return weight, bias
    if norm.num_features != conv.out_channels:
        raise ValueError(f"{norm!r} does not fit behind {conv!r}: it has another number of channels")
    scale = norm.weight.data / np.sqrt(norm.running_var + np.float32(norm.eps))
    return weight * scale[:, None, None, None], norm.bias.data + (bias - norm.running_mean) * scale


def fuse_conv_bn(conv: Conv2d, norm: BatchNorm2d) -> Conv2d:
    """Return one convolution that computes, in evaluation, what the two do one after the other. Neither is changed.

    Source and errors are those of `fold_batch_norm`: a TypeError if `conv` is no convolution with weights in float32,
    a ValueError if their channels differ.
    """
    weight, bias = fold_batch_norm(conv, norm)
    sizes = conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, conv.padding
    fused = Conv2d(*sizes, bias=True, rng=np.random.default_rng(0))
    fused.load_state_dict({"weight": weight, "bias": bias})
    fused.train(conv.training)
    return fused
