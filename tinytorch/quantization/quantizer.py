"""`INT8Quantizer`: post-training quantization of a trained model, with a look at some data."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Self

import numpy as np

from tinytorch import nn
from tinytorch.autograd import no_grad
from tinytorch.kernels.progress import progress_bar
from tinytorch.nn.module import evaluation
from tinytorch.quantization.affine import LARGEST
from tinytorch.quantization.blocks import Block, split
from tinytorch.quantization.layers import QuantizedConv2d, QuantizedLinear, QuantizedPool2d
from tinytorch.quantization.model import QuantizedModel
from tinytorch.quantization.observers import MinMaxObserver, Observer
from tinytorch.quantization.tensor import QParams
from tinytorch.tensor import Tensor


class INT8Quantizer:
    """Quantizes a model: `INT8Quantizer().calibrate(model, images).convert(model)`.

    Weights get a scale for each output channel; activations one for each tensor, chosen by an observer that has seen
    them on the calibration data.

    Source: Nagel et al., "A white paper on neural network quantization" (2021), section 3.

    Parameters
    ----------
    observer
        What chooses the range of activations: a class of `tinytorch.quantization.observers`, or a function of `bits`
        that makes one.
    weight_observer
        The same for weights: a function of `bits` and `symmetric`.
    bits, weight_bits
        Over how many bits, 2 to 8, the codes of activations and weights reach. Each code takes a byte all the same.
        Of weights, a mapping gives bits by the layer's path in the model, and 8 to the layers that it does not name.
    per_channel
        Whether each output channel's weights have a scale of their own, or all of a layer one.
    correct_bias
        Whether biases make up for what rounding the weights does to the mean of each output channel, as it is on the
        calibration data. At 8 bits there is nothing to be made up for.
    unsupported
        What becomes of a layer that cannot be quantized: "error", or "float": it stays as it is.
    """

    def __init__(
        self,
        observer: Callable[..., Observer] = MinMaxObserver,
        *,
        weight_observer: Callable[..., Observer] = MinMaxObserver,
        bits: int = 8,
        weight_bits: int | Mapping[str, int] = 8,
        per_channel: bool = True,
        correct_bias: bool = True,
        unsupported: str = "error",
    ) -> None:
        self.observer, self.weight_observer = observer, weight_observer
        self.bits, self.weight_bits, self.per_channel = bits, weight_bits, per_channel
        self.correct_bias, self.unsupported = correct_bias, unsupported
        observer(bits=bits)  # what they refuse, refuse now
        for number in weight_bits.values() if isinstance(weight_bits, Mapping) else (weight_bits,):
            weight_observer(bits=number, symmetric=True)
        self._model: nn.Module | None = None
        self._seen: list[QParams] = []  # of what goes into each block
        self._means: list[np.ndarray] = []  # the same, of each channel or feature

    def calibrate(
        self, model: nn.Module, calibration_data: Any, *, batch_size: int = 64, progress: bool = True
    ) -> Self:
        """Run the model, in evaluation, over some data, and choose the ranges of all activations. Returns self.

        The model is left as it was. A few hundred images do.

        Parameters
        ----------
        calibration_data
            Inputs (N, ...), float32, a Tensor or an array, cut into batches here; or batches, one after the other.
        progress
            Whether to show a bar, if it takes more than a second.

        Raises
        ------
        TypeError
            If the data is not float32.
        ValueError
            If there is no data, it holds NaN or infinite numbers or leads to them (the message says behind which
            layer), or the model has a layer that cannot be quantized. What was calibrated before stays.
        """
        blocks = split(model, self.unsupported)
        observers = [self.observer(bits=self.bits) for _ in blocks]
        means = [_Mean() for _ in blocks]
        with evaluation(model), no_grad():
            for number, x in enumerate(_batches(calibration_data, batch_size, progress)):
                self._watch(blocks, observers, means, x, number)
        if not observers[0].count:
            raise ValueError("there is no calibration data: give some inputs of the kind that the model will see")
        self._model = model
        self._seen = [_settled(observer) for observer in observers]
        self._means = [mean.value for mean in means]
        return self

    def _watch(
        self, blocks: list[Block], observers: list[Observer], means: list[_Mean], x: np.ndarray, number: int
    ) -> None:
        """Run one batch; observer and mean i see what goes into block i."""
        where = "the calibration data"
        for block, observer, mean in zip(blocks, observers, means, strict=True):
            try:
                observer.observe(x)
                mean.add(x)
            except ValueError as error:
                raise ValueError(f"{where}, batch {number}: {error}") from None
            for layer in block.layers:
                x = layer(Tensor(x)).data
            where = f"what comes out of {type(block.core).__name__} at {block.path!r}"

    def convert(self, model: nn.Module) -> QuantizedModel:
        """Return the model in whole numbers. The model itself is not changed, and shares no memory with it.

        Raises
        ------
        RuntimeError
            If this model was not calibrated.
        ValueError
            If a weight is NaN or infinite, or a convolution comes last, so that its output has no range: the message
            gives the layer. Or if `weight_bits` names a layer that there is not.
        """
        if self._model is not model:
            raise RuntimeError("this model was not calibrated: call calibrate(model, calibration_data) first")
        blocks, layers = split(model, self.unsupported), list[nn.Module]()
        if isinstance(self.weight_bits, Mapping) and (lost := self.weight_bits.keys() - {b.path for b in blocks}):
            raise ValueError(f"weight_bits names {sorted(lost)}, but the layers are {[b.path for b in blocks]}")
        incoming: QParams | None = None  # None where numbers come in, not codes
        for i, block in enumerate(blocks):
            if block.is_float:
                layers += [copy.deepcopy(layer).eval() for layer in block.layers]
                incoming = None
                continue
            before = self._seen[i] if incoming is None else incoming
            ends = i + 1 == len(blocks) or blocks[i + 1].is_float
            after = self._seen[i + 1] if i + 1 < len(blocks) else None
            try:
                layer = self._layer(block, before, after, ends, self._means[i])
            except ValueError as error:
                raise ValueError(f"{type(block.core).__name__} at {block.path!r}: {error}") from None
            layers.append(layer)
            incoming = layer.qparams
        return QuantizedModel(layers)

    def _weight_bits(self, block: Block) -> int:
        return self.weight_bits.get(block.path, 8) if isinstance(self.weight_bits, Mapping) else self.weight_bits

    def _layer(
        self, block: Block, before: QParams, after: QParams | None, ends: bool, mean: np.ndarray
    ) -> QuantizedConv2d | QuantizedLinear | QuantizedPool2d:
        how: dict[str, Any] = {
            "weight_bits": self._weight_bits(block),
            "per_channel": self.per_channel,
            "weight_observer": self.weight_observer,
            "input_mean": mean if self.correct_bias else None,
        }
        core = block.core
        if isinstance(core, nn.Conv2d):
            if after is None:
                raise ValueError("a convolution cannot be the last layer: its output has no calibrated range")
            return QuantizedConv2d.from_float(
                core, before, after, norm=block.norm, relu=block.relu, pool=block.pool, **how
            )
        if isinstance(core, nn.Linear):
            if ends and not block.relu:
                after = None  # numbers are wanted: no rounding is better than one
            return QuantizedLinear.from_float(core, before, after, relu=block.relu, **how)
        assert isinstance(core, nn.MaxPool2d | nn.AvgPool2d)
        return QuantizedPool2d(core.kernel_size, core.stride, isinstance(core, nn.AvgPool2d), before)


def _settled(observer: Observer) -> QParams:
    """Return what codes mean, the scale rounded up to 10 binary digits.

    Sums of float32 differ in their last digits from processor to processor. What is computed in whole numbers does not,
    so with a scale that is the same everywhere nearly always, so is all that follows from it.
    """
    fraction, exponent = math.frexp(observer.qparams()[0])
    scale = min(math.ldexp(math.ceil(fraction * 1024), exponent - 10), float(LARGEST))
    zero_point = round(-observer.range()[0] / scale)
    return QParams(scale, zero_point, observer.bits)


class _Mean:
    """The mean of each channel (N, C, H, W), or of each feature (N, F), over all that was added."""

    def __init__(self) -> None:
        self._total, self._count = np.zeros(1), 0

    def add(self, x: np.ndarray) -> None:
        others = tuple(axis for axis in range(x.ndim) if axis != 1)
        self._total = self._total + x.sum(axis=others, dtype=np.float64)
        self._count += x.size // x.shape[1]

    @property
    def value(self) -> np.ndarray:
        return self._total / self._count


def _batches(data: Any, batch_size: int, progress: bool) -> Iterator[np.ndarray]:
    """Yield the batches, with a bar."""
    if isinstance(data, Tensor):
        data = data.data
    if isinstance(data, np.ndarray):
        batches: Iterable[Any] = [data[start : start + batch_size] for start in range(0, len(data), batch_size)]
    else:
        batches = data
    with progress_bar(batches, desc="calibrating", unit="batch", delay=1, disable=not progress) as bar:
        for batch in bar:
            x = batch.data if isinstance(batch, Tensor) else np.asarray(batch)
            if x.dtype != np.float32:
                raise TypeError(f"calibration data has to be float32, as the model's inputs are, not {x.dtype}")
            if x.size:
                yield x
