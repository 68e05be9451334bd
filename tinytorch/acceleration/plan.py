"""`Plan`: a trained network prepared once for inference, then run in a single call.

What is done once: batch norm is folded into the weights before it, weights are laid out as the kernel reads them,
memory for everything in between is allocated. What a call does: convolution, bias, ReLU and pooling of a layer in one
go, one image after the other, without a number leaving the cache. Rows and columns that pooling drops are not computed.
"""

from __future__ import annotations

import math
import threading

import numpy as np

from tinytorch import nn
from tinytorch.kernels.compiled.conv import TILES, choose_tile, pack_weights
from tinytorch.kernels.compiled.plan import CONVOLUTION, LINEAR, LINEAR_VECTORS, run
from tinytorch.kernels.compiled.threads import parallel_for
from tinytorch.kernels.conv import output_size
from tinytorch.nn.fuse import fold_batch_norm
from tinytorch.nn.queue import Behind, LayerQueue

Step = dict[str, int]


class Plan:
    """A network for inference on images of one shape, in any number: `plan(x)` computes `model(x)` in evaluation.

    The weights are copied: training the model afterwards does not change the plan.

    Parameters
    ----------
    model
        An `nn.Sequential` of Conv2d (followed by BatchNorm2d, ReLU, MaxPool2d or AvgPool2d, in this order, each of them
        optional), then Flatten and Linear (each followed by an optional ReLU). Windows of pooling neither overlap nor
        leave gaps; ReLU may also stand behind a MaxPool2d. Dropout does nothing in evaluation.
    input_shape
        Of one image: (C, H, W), or (features,) for a network of linear layers.

    Raises
    ------
    ValueError
        If the network has another layer, or one in another place: the message gives its path. Or if shapes do not fit.
    """

    def __init__(self, model: nn.Sequential, input_shape: tuple[int, ...]) -> None:
        self.input_shape = tuple(input_shape)
        builder = _Builder(self.input_shape)
        layers = LayerQueue(model)
        while layers:
            path, layer = layers.pop()
            if isinstance(layer, nn.Conv2d):
                builder.add_convolution(path, layer, layers.take_behind(nn.MaxPool2d, nn.AvgPool2d))
            elif isinstance(layer, nn.Flatten):
                builder.shape = (math.prod(builder.shape),)
            elif isinstance(layer, nn.Linear):
                builder.add_linear(path, layer, relu=bool(layers.take(nn.ReLU)))
            else:
                raise ValueError(f"a plan cannot hold {layer!r} at {path!r}: see the order of layers in Plan's help")
        builder.finish()
        self.output_shape = builder.shape

        self._run, self._packed = run, np.concatenate(builder.packed)
        self._table = _records(builder.steps, CONVOLUTION)
        self._layers = _records(builder.layers, LINEAR)
        self._size, self._widest, self._result = builder.size, builder.widest, builder.result
        self._local = threading.local()  # threads that share a plan must not share its memory

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Return the outputs (N, ...) for x (N, *input_shape), float32. A ValueError names what does not fit."""
        if x.shape[1:] != self.input_shape or x.dtype != np.float32:
            sizes = ", ".join(map(str, self.input_shape))
            raise ValueError(f"this plan is for float32 (N, {sizes}), got {x.dtype} {x.shape}")
        images = x.transpose(0, 2, 3, 1) if len(self._table) else x.reshape(len(x), 1, 1, math.prod(self.input_shape))
        out = np.empty((len(x), *self._result), np.float32)
        parallel_for(self._part, len(x), images, np.empty((2, len(x) * self._widest), np.float32), out)
        return out if out.ndim == 2 else out.transpose(0, 3, 1, 2).reshape(len(x), *self.output_shape)

    def _part(self, images: np.ndarray, hidden: np.ndarray, out: np.ndarray, start: int, stop: int) -> None:
        try:
            memory = self._local.memory
        except AttributeError:
            memory = self._local.memory = np.zeros(self._size, np.float32)
        self._run(self._table, self._layers, self._packed, images, memory, hidden, out, start, stop)


def _records(steps: list[Step], kind: np.dtype) -> np.ndarray:
    return np.array([tuple(step[name] for name in kind.names or ()) for step in steps], kind)


class _Builder:
    """Sizes, places and packed weights of the steps, gathered layer by layer."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape  # of what the next layer gets: (C, H, W), or (features,)
        self.features: tuple[int, ...] | None = None  # the size of the images that the last convolution left
        self._image = shape
        self.steps: list[Step] = []
        self.layers: list[Step] = []
        self.packed: list[np.ndarray] = []
        self.size, self.widest, self._weights = 0, 1, 0

    def _place(self, count: int) -> int:
        """Set memory aside, from a whole cache line on."""
        start = self.size
        self.size += -(-count // 16) * 16
        return start

    def _pack(self, weight: np.ndarray, bias: np.ndarray | None, vectors: int) -> int:
        start = self._weights
        self.packed.append(pack_weights(weight, bias, vectors))
        self._weights += self.packed[-1].size
        return start

    def add_convolution(self, path: str, conv: nn.Conv2d, behind: Behind) -> None:
        """Add a convolution and what is done with it in one go."""
        if len(self.shape) != 3 or self.shape[0] != conv.in_channels:
            raise ValueError(f"{conv!r} at {path!r} takes ({conv.in_channels}, H, W), not {self.shape}")
        channels, height, width = self.shape
        side = 1 if behind.pool is None else behind.pool.kernel_size
        rows, columns = (output_size(n, conv.kernel_size, conv.stride, conv.padding) // side for n in (height, width))
        if rows < 1 or columns < 1:
            raise ValueError(f"{conv!r} at {path!r} leaves nothing of images of {height} x {width}")
        pitch, out_channels = (width + 2 * conv.padding) * channels, conv.out_channels
        tile = choose_tile(columns * side, out_channels)
        step = {
            "tile": tile,
            "source": self._place((height + 2 * conv.padding) * pitch),
            "pitch": pitch,
            "height": height,
            "padding": conv.padding,
            "stride": conv.stride,
            "step": conv.stride * channels,
            "kernel": conv.kernel_size,
            "run": conv.kernel_size * channels,
            "weights": self._pack(*fold_batch_norm(conv, behind.norm), TILES[tile][1]),
            "rows": rows * side,
            "columns": columns * side,
            "channels": out_channels,
            "relu": behind.relu,
            "pool": side,
            "is_max": isinstance(behind.pool, nn.MaxPool2d),
            "scratch": self._place(side * columns * side * out_channels if side > 1 else 0),
        }
        if self.steps:  # write into the middle of what this convolution reads
            self.steps[-1] |= {"target": step["source"] + conv.padding * (pitch + channels), "target_pitch": pitch}
        self.steps.append(step)
        self.shape = self.features = self._image = (out_channels, rows, columns)

    def add_linear(self, path: str, linear: nn.Linear, relu: bool) -> None:
        """Add a linear layer and its ReLU."""
        inputs = linear.in_features
        if self.shape != (inputs,):
            raise ValueError(f"{linear!r} at {path!r} takes ({inputs},), not {self.shape}")
        weight = linear.weight.data
        if self.features is not None:  # the features come with their channels last
            weight = weight.reshape(-1, *self.features).transpose(0, 2, 3, 1).reshape(len(weight), inputs)
            self.features = None
        start = self._pack(weight[:, :, None, None], None if linear.bias is None else linear.bias.data, LINEAR_VECTORS)
        self.layers.append({"inputs": inputs, "outputs": linear.out_features, "weights": start, "relu": relu})
        self.widest = max(self.widest, inputs, linear.out_features)
        self.shape = (linear.out_features,)

    def finish(self) -> None:
        """Give the last convolution a place for its result, and settle the shape of what a call writes."""
        self.result = self.shape
        if self.steps:
            channels, rows, columns = self._image
            self.steps[-1] |= {"target": self._place(rows * columns * channels), "target_pitch": columns * channels}
            if not self.layers:
                self.result = (rows, columns, channels)
        elif not self.layers:
            raise ValueError("a plan needs a convolution or a linear layer")
