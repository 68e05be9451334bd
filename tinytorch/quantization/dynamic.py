"""Linear layers in whole numbers without calibration: `quantize_dynamic` makes them of a model's, at any depth.

Weights are rounded once, to int8 with a scale for each output channel. Activations are rounded when they come, each row
with a scale of its own: what an outlier does stays in its row, and nobody has to have seen the data. What it costs is a
look at each row before the product.
"""

from __future__ import annotations

from typing import Any, Self

import numpy as np

from tinytorch import nn
from tinytorch.kernels.decoding import Coded
from tinytorch.kernels.dynamic import Product
from tinytorch.nn.exchange import exchange_linears
from tinytorch.ops.dynamic import DynamicLinear
from tinytorch.quantization.layers import QuantizedConv2d, QuantizedLinear, QuantizedPool2d, quantize_weight
from tinytorch.quantization.model import QuantizedModel
from tinytorch.quantization.observers import MinMaxObserver
from tinytorch.quantization.qat_layers import QATConv2d, QATLinear, QATPool2d
from tinytorch.tensor import Tensor


class _Seen:
    """An array of a layer that may be written to wherever it was seen: the layer prepares its kernels anew after that.

    Kernels have the weights in an order of their own. `load_state_dict` of any module above writes to the arrays.
    """

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = f"_{name}"

    def __get__(self, layer: DynamicQuantizedLinear | None, owner: type | None = None) -> Any:
        if layer is None:
            return self
        layer.forget()
        return getattr(layer, self._name)

    def __set__(self, layer: DynamicQuantizedLinear, array: np.ndarray | None) -> None:
        layer.forget()
        setattr(layer, self._name, array)


class DynamicQuantizedLinear(nn.Module):
    """A linear layer whose products are those of whole numbers: float32 (..., in_features) -> (..., out_features).

    For inference: it has no gradient. `tinytorch.kernels.dynamic` has the formula.

    Attributes
    ----------
    weight
        Codes int8 (out_features, in_features), symmetric. `from_float` copies; given arrays are used as they are.
    weight_scale
        float32 (out_features,): what code 1 stands for in each output channel.
    bias
        float32 (out_features,) or None.
    weight_bits
        Codes of the weight reach over so many bits; each takes a byte whatever it is. Activations have 8.

    Raises
    ------
    TypeError, ValueError
        If dtypes or shapes do not fit, a scale is not a finite number above zero, or a sum could leave 32 bits.
    """

    weight = _Seen()
    weight_scale = _Seen()

    def __init__(
        self, weight: np.ndarray, weight_scale: np.ndarray, bias: np.ndarray | None = None, weight_bits: int = 8
    ) -> None:
        super().__init__()
        self.training = False
        self._product: Product | None = None
        Product(weight, weight_scale)  # what it refuses
        self.register_buffer("weight", weight)
        self.register_buffer("weight_scale", weight_scale)
        self.out_features, self.in_features = weight.shape
        self.bias: np.ndarray | None = None
        if bias is not None:
            if bias.dtype != np.float32 or bias.shape != (self.out_features,):
                wanted = f"float32 ({self.out_features},)"
                raise ValueError(f"DynamicQuantizedLinear: bias has to be {wanted}, not {bias.dtype} {bias.shape}")
            self.register_buffer("bias", bias)
        self.weight_bits = weight_bits

    @classmethod
    def from_float(cls, linear: nn.Linear, weight_bits: int = 8) -> Self:
        """Quantize a linear layer, which is left as it is and shares no memory with it.

        A ValueError if a weight is NaN or infinite, or `weight_bits` are not 2 to 8.
        """
        weight, scale = quantize_weight(linear.weight.data, weight_bits, True, MinMaxObserver)
        return cls(weight, scale, None if linear.bias is None else linear.bias.data.copy(), weight_bits)

    @property
    def nbytes(self) -> int:
        """The bytes of weight, scales and bias."""
        return sum(array.nbytes for array in (self._weight, self._weight_scale, self.bias) if array is not None)

    _weight: np.ndarray
    _weight_scale: np.ndarray

    def forget(self) -> None:
        """Prepare the kernels anew with the next input: weights may have changed."""
        if self._product is not None:
            self._product = None

    def product(self) -> Product:
        """Return what multiplies with the weights."""
        if self._product is None:
            self._product = Product(self._weight, self._weight_scale)
        return self._product

    def for_step(self) -> Coded | None:
        """Return the weights for a whole step of a GPT in one call; None from a class that may compute otherwise."""
        if type(self) is not DynamicQuantizedLinear:
            return None
        return Coded(self._weight, self._weight_scale, self.product())

    def forward(self, x: Tensor) -> Tensor:
        """Round each row, and multiply.

        Raises
        ------
        TypeError
            If x is not float32.
        ValueError
            If the last axis of x is not `in_features`, or x holds numbers that are NaN or infinite.
        """
        if x.ndim == 0 or x.shape[-1] != self.in_features:
            raise ValueError(f"DynamicQuantizedLinear takes inputs of {self.in_features} features, got shape {x.shape}")
        if x.dtype != np.float32:
            raise TypeError(f"DynamicQuantizedLinear computes from float32, got {x.dtype}")
        return DynamicLinear.apply(x, self._weight, self._weight_scale, self.bias, self.product())

    def extra_repr(self) -> str:
        """Show sizes and bits."""
        sizes = f"in_features={self.in_features}, out_features={self.out_features}"
        return f"{sizes}, bias={self.bias is not None}, weight_bits={self.weight_bits}"


_IN_WHOLE_NUMBERS = (
    DynamicQuantizedLinear, QuantizedModel, QuantizedConv2d, QuantizedLinear, QuantizedPool2d, QATConv2d, QATLinear,
    QATPool2d,
)  # fmt: skip


def quantize_dynamic(model: nn.Module, weight_bits: int = 8) -> nn.Module:
    """Return a copy of a model whose `nn.Linear` layers are in whole numbers; the model itself is left as it is.

    Any model will do: a GPT, a block, a Sequential, a layer. Everything else stays in float32: embeddings, norms,
    activations, convolutions, the products of attention with one another, layers of classes of the reader's own; and a
    linear layer whose weight is the table of an embedding, as that of a tied head. The copy is in evaluation mode.

    Parameters
    ----------
    weight_bits
        Of weights, 2 to 8. Activations have 8.

    Raises
    ------
    ValueError
        If a part of the model is in whole numbers already, there is no linear layer to exchange, or a weight is NaN or
        infinite: the message gives its place.

    Examples
    --------
    >>> model = nn.Sequential(nn.Linear(64, 32), nn.GELU(), nn.Linear(32, 10))
    >>> quantize_dynamic(model)[2]
    DynamicQuantizedLinear(in_features=32, out_features=10, bias=True, weight_bits=8)
    """
    for path, module in model.named_modules():
        if isinstance(module, _IN_WHOLE_NUMBERS):
            where = f" at {path!r}" if path else ""
            raise ValueError(f"the {type(module).__name__}{where} is in whole numbers already: give the float model")
    copied = exchange_linears(model, lambda layer: DynamicQuantizedLinear.from_float(layer, weight_bits))
    if copied is None:
        raise ValueError(f"this {type(model).__name__} has no linear layer that could be quantized")
    return copied.eval()
