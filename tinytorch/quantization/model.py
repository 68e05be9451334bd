"""`QuantizedModel`: layers of whole numbers from the image to the logits, saved in a quarter of the bytes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from tinytorch import nn
from tinytorch.autograd import no_grad
from tinytorch.data import DataError
from tinytorch.kernels import int8
from tinytorch.ops.integers import integer_network
from tinytorch.quantization.layers import QuantizedConv2d, QuantizedLinear, QuantizedPool2d
from tinytorch.quantization.tensor import QParams
from tinytorch.tensor import Tensor
from tinytorch.zoo import files

QuantizedLayer = QuantizedConv2d | QuantizedLinear | QuantizedPool2d

_FLOAT32 = np.dtype(np.float32)
_FORMAT = "tinytorch-int8-1"
_ARRAYS = ("weight", "weight_scale", "bias")


class _Integers:
    """Layers of whole numbers that stand one behind the other: floats in, floats out, codes in between."""

    def __init__(self, layers: list[QuantizedLayer]) -> None:
        self.layers, self._networks = layers, dict[tuple[int, ...], int8.Network]()
        last = layers[-1].qparams
        self._meaning = None if last is None else (last.scale, last.zero_point)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        shape = x.shape[1:]
        network = self._networks.get(shape)  # one for each shape of images
        if network is None:
            scale, zero_point, _ = self.layers[0].input_qparams
            highest = self.layers[0].input_qparams.highest
            network = int8.Network([layer.spec() for layer in self.layers], shape, scale, zero_point, highest)
            self._networks[shape] = network
        return integer_network(x, network, self._meaning)


class QuantizedModel(nn.Module):
    """A model for inference, made by `INT8Quantizer.convert` or read by `load`.

    Its input is rounded to codes once, then layer follows layer in whole numbers; where layers were left in float32,
    codes become numbers before them and numbers codes behind them.

    Parameters
    ----------
    layers
        In the order of computation. Each takes codes as the one before it gives them.
    """

    def __init__(self, layers: list[nn.Module]) -> None:
        super().__init__()
        self.layers = layers
        self.training = False
        self._prepare()

    def _prepare(self) -> None:
        self._parts: list[Any] = []
        for whole, group in groupby(self.layers, lambda layer: isinstance(layer, QuantizedLayer)):
            these: list[Any] = list(group)
            self._parts += [_Integers(these)] if whole else these

    def forward(self, x: Tensor | np.ndarray) -> Tensor:
        """Return the output for float32 x (N, ...), without a gradient.

        Raises
        ------
        TypeError
            If x is not float32.
        ValueError
            If its shape does not fit, or it holds NaN.
        """
        array = x.data if isinstance(x, Tensor) else np.asarray(x)
        if array.dtype != _FLOAT32:
            raise TypeError(f"a quantized model takes float32 and rounds it to codes itself, got {array.dtype}")
        for part in self._parts:
            if isinstance(part, _Integers):
                array = part(array)
            else:
                with no_grad():
                    array = part(Tensor(array)).data
        return Tensor(array)

    def train(self, mode: bool = True) -> nn.Module:
        """Refuse training mode: whole numbers have no gradient. For training, see `prepare_qat`."""
        if mode:
            raise RuntimeError("a QuantizedModel cannot be trained: its weights are whole numbers")
        return super().train(False)

    def load_state_dict(self, state: Mapping[str, np.ndarray]) -> None:
        """Copy arrays in, as any module does, and prepare the kernels anew."""
        super().load_state_dict(state)
        self._prepare()

    def save(self, path: str | Path) -> Path:
        """Write the model as safetensors, the layers described in its metadata. Returns the path.

        A ValueError if layers of it are in float32: only whole numbers have a form in this file.
        """
        left = [str(i) for i, layer in enumerate(self.layers) if not isinstance(layer, QuantizedLayer)]
        if left:
            raise ValueError(f"only a model of whole numbers can be saved; in float32 are layers {', '.join(left)}")
        arrays: dict[str, np.ndarray] = {}
        described = []
        for i, layer in enumerate(self.layers):
            arrays |= {f"{i}.{name}": array for name, array in layer.state_dict().items()}
            described.append(_describe(layer))  # type: ignore[arg-type]
        metadata = {"format": _FORMAT, "layers": json.dumps(described, separators=(",", ":"))}
        files.save_arrays(Path(path), arrays, metadata)
        return Path(path)

    @classmethod
    def load(cls, path: str | Path) -> QuantizedModel:
        """Read a model that `save` wrote. A DataError says what is wrong with the file."""
        arrays, metadata = files.read_arrays(Path(path)), files.read_metadata(Path(path))
        if metadata.get("format") != _FORMAT:
            raise DataError(f"{path} is no quantized model: its metadata has no format {_FORMAT!r}")
        try:
            described = json.loads(metadata["layers"])
            layers = [_restore(layer, i, arrays) for i, layer in enumerate(described)]
            if not layers:
                raise ValueError("it has no layers")
            for layer in layers:
                layer.spec()  # types, shapes and ranges
            return cls(layers)  # type: ignore[arg-type]
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise DataError(f"{path} is no quantized model: {error}") from None


def _describe(layer: QuantizedLayer) -> dict[str, Any]:
    if isinstance(layer, QuantizedPool2d):
        sizes = layer.kernel_size, layer.stride, int(layer.mean)
        return {"kind": "pool", "sizes": sizes, "in": layer.input_qparams}
    common = {"in": layer.input_qparams, "out": layer.qparams, "bits": layer.weight_bits, "relu": int(layer.relu)}
    if isinstance(layer, QuantizedConv2d):
        return {"kind": "conv", "sizes": (layer.stride, layer.padding, layer.pool), **common}
    return {"kind": "linear", **common}


def _restore(described: dict[str, Any], place: int, arrays: dict[str, np.ndarray]) -> QuantizedLayer:
    incoming = QParams(*described["in"])
    if described["kind"] == "pool":
        kernel_size, stride, mean = described["sizes"]
        return QuantizedPool2d(kernel_size, stride, bool(mean), incoming)
    numbers: dict[str, Any] = {name: arrays[f"{place}.{name}"] for name in _ARRAYS}
    outgoing = None if described["out"] is None else QParams(*described["out"])
    numbers |= {"input_qparams": incoming, "qparams": outgoing}
    numbers |= {"weight_bits": described["bits"], "relu": bool(described["relu"])}
    if described["kind"] == "linear":
        return QuantizedLinear(**numbers)
    if described["kind"] != "conv":
        raise ValueError(f"layer {place} is of an unknown kind: {described['kind']!r}")
    stride, padding, pool = described["sizes"]
    return QuantizedConv2d(**numbers, stride=stride, padding=padding, pool=pool)
