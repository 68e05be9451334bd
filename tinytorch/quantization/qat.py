"""Quantization-aware training: `prepare_qat` puts rounding into a model, `train_qat` trains it, `convert_qat` ends it.

Source: Jacob et al., "Quantization and training of neural networks for efficient integer-arithmetic-only inference"
(2018), section 3.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tinytorch import nn
from tinytorch.data import Images
from tinytorch.nn.functional import cross_entropy
from tinytorch.quantization.blocks import Block, split
from tinytorch.quantization.layers import QuantizedConv2d, QuantizedLinear
from tinytorch.quantization.model import QuantizedLayer, QuantizedModel
from tinytorch.quantization.observers import MSEObserver, Observer
from tinytorch.quantization.qat_layers import QATConv2d, QATDequantize, QATLinear, QATPool2d, QATQuantize
from tinytorch.quantization.quantizer import INT8Quantizer
from tinytorch.quantization.tensor import QParams
from tinytorch.tensor import Tensor
from tinytorch.zoo.fitting import fit


def prepare_qat(
    model: nn.Module,
    calibration_data: Any,
    *,
    observer: Callable[..., Observer] = MSEObserver,
    weight_observer: Callable[..., Observer] = MSEObserver,
    bits: int = 8,
    weight_bits: int | Mapping[str, int] = 8,
    per_channel: bool = True,
    unsupported: str = "error",
    batch_size: int = 64,
    progress: bool = True,
) -> nn.Sequential:
    """Return a copy of a trained model that trains on with rounded weights and activations.

    The model itself is left as it was. Untrained, the copy computes what `INT8Quantizer` makes of the model, bit for
    bit. The ranges of activations stay as calibrated; the scales of weights follow the weights. Batch norm is folded
    into the weights once, now: what is trained is the folded weight, and no batch's statistics are used any more.
    Dropout is left out.

    Parameters
    ----------
    calibration_data, batch_size, progress
        As for `INT8Quantizer.calibrate`.
    observer, weight_observer, bits, weight_bits, per_channel, unsupported
        As for `INT8Quantizer`.

    Raises
    ------
    TypeError, ValueError
        As `INT8Quantizer`, its `calibrate` and its `convert` raise them.
    """
    quantizer = INT8Quantizer(
        observer, weight_observer=weight_observer, bits=bits, weight_bits=weight_bits, per_channel=per_channel,
        unsupported=unsupported,
    ).calibrate(model, calibration_data, batch_size=batch_size, progress=progress)  # fmt: skip
    whole = (layer for layer in quantizer.convert(model).layers if isinstance(layer, QuantizedLayer))
    layers = list[nn.Module]()
    codes: QParams | None = None  # None where numbers flow, not codes
    for block in split(model, unsupported):
        if block.is_float:
            layers += [] if codes is None else [QATDequantize(codes)]
            layers += copy.deepcopy(block.layers)
            codes = None
            continue
        layer = next(whole)
        layers += [QATQuantize(layer.input_qparams)] if codes is None else []
        layers.append(_trainable(block, layer, per_channel))
        codes = layer.qparams
    prepared = nn.Sequential(*layers, *([] if codes is None else [QATDequantize(codes)]))
    prepared.eval()
    return prepared


def _trainable(block: Block, layer: QuantizedLayer, per_channel: bool) -> nn.Module:
    if isinstance(layer, QuantizedConv2d):
        return QATConv2d(block, layer, per_channel)
    if isinstance(layer, QuantizedLinear):
        return QATLinear(block, layer, per_channel)
    return QATPool2d(layer)


def train_qat(
    prepared: nn.Module,
    data: Images | tuple[np.ndarray, np.ndarray],
    *,
    teacher: nn.Module | None = None,
    epochs: int = 3,
    lr: float = 1e-3,
    batch_size: int = 64,
    rng: np.random.Generator,
    progress: bool = True,
) -> list[float]:
    """Train what `prepare_qat` returned, in place: AdamW without decay, the learning rate falling along a half cosine.

    Ctrl-C stops it; the model then is what it was after the last step, and can be converted.

    Parameters
    ----------
    data
        Images, float32 (N, ...), and labels, class numbers (N,).
    teacher
        A model, mostly the one in float32. If given, the mean squared distance to its outputs is added to the
        cross-entropy of the labels: few images say more about what to compute in that way. Source: Ba & Caruana, "Do
        deep nets really need to be deep?" (2014), section 2.2.
    epochs, batch_size
        How often all images are seen, and how many at once.
    lr
        Where the learning rate begins.
    rng
        What shuffles the images.
    progress
        Whether to show a bar, if it takes more than a second.

    Returns
    -------
    list
        The mean loss of each epoch.

    Raises
    ------
    TypeError
        If the images are not float32.
    ValueError
        If there are none, or not as many labels, or a number is out of range.
    FloatingPointError
        If the loss is not finite: the learning rate is too high.
    """

    def loss_of(outputs: Tensor, labels: np.ndarray, wanted: np.ndarray | None) -> Tensor:
        loss = cross_entropy(outputs, labels)
        return loss if wanted is None else loss + ((outputs - wanted) ** 2).mean()

    return fit(
        prepared, data, loss_of, teacher=teacher, epochs=epochs, lr=lr, batch_size=batch_size, rng=rng,
        progress=progress,
    )  # fmt: skip


def convert_qat(prepared: nn.Module) -> QuantizedModel:
    """Return what `prepare_qat` made and training changed, in whole numbers: the same outputs, bit for bit.

    That is so as long as no sum of a layer is beyond 2^24, up to where float32 is exact. 8 bits get there with 518
    products of the largest codes; other sums of thousands stay far below. Beyond, codes may differ by one.

    Raises
    ------
    TypeError
        If the model was not made by `prepare_qat`.
    ValueError
        If a weight is NaN or infinite.
    """
    if not isinstance(prepared, nn.Sequential) or not any(isinstance(layer, QATQuantize) for layer in prepared):
        raise TypeError(f"only what prepare_qat returned can be converted, not {type(prepared).__name__}")
    layers: list[nn.Module] = []
    for path, layer in prepared.named_layers():
        if isinstance(layer, QATConv2d | QATLinear | QATPool2d):
            try:
                layers.append(layer.convert())
            except ValueError as error:
                raise ValueError(f"{type(layer).__name__} at {path!r}: {error}") from None
        elif not isinstance(layer, QATQuantize | QATDequantize):
            layers.append(copy.deepcopy(layer).eval())
    return QuantizedModel(layers)
