"""Random networks of whole numbers, with everything that a layer may be."""

from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st

from tinytorch.kernels.conv import output_size
from tinytorch.kernels.int8 import Convolution, Linear, Network, Pooling


def layer_numbers(draw, rng, channels, size, input_zero_point):
    """Return weight and what both kinds of layers have; scaled sums fall inside and outside of the range of codes."""
    highest = draw(st.sampled_from([255, 255, 15]))
    zero_point = draw(st.sampled_from([0, 0, 7, 8]))
    extreme = draw(st.booleans())
    weight = rng.choice(np.array([-127, 127], np.int8), size) if extreme else rng.integers(-127, 128, size, np.int8)
    depth = weight[0].size
    return {
        "weight": weight,
        "bias": rng.integers(-5000, 5001, channels).astype(np.int32),
        "multiplier": (rng.uniform(0.1, 3.0, channels) / (60.0 * np.sqrt(depth) * 60.0) * highest).astype(np.float32),
        "input_zero_point": input_zero_point,
        "zero_point": zero_point,
        "lowest": draw(st.sampled_from([0, zero_point])),
        "highest": highest,
    }


@st.composite
def networks(draw):
    """Return a network, and a function that gives images for it: codes, or numbers."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    channels, height, width = draw(st.integers(1, 5)), draw(st.integers(4, 14)), draw(st.integers(4, 14))
    shape, zero_point = (channels, height, width), draw(st.sampled_from([0, 0, 9]))
    first_zero_point, layers = zero_point, []
    for _ in range(draw(st.integers(0, 3))):
        kernel, stride, padding = draw(st.integers(1, 3)), draw(st.integers(1, 2)), draw(st.integers(0, 3))
        pool, out = draw(st.integers(1, 3)), draw(st.sampled_from([1, 4, 8, 16, 17, 32, 65]))
        if draw(st.integers(0, 3)) == 0:
            sizes = [output_size(n, kernel, stride, 0) for n in (height, width)]
            layer = Pooling(kernel, stride, mean=draw(st.booleans()))
            out = channels
        else:
            sizes = [output_size(n, kernel, stride, padding) // pool for n in (height, width)]
            numbers = layer_numbers(draw, rng, out, (out, channels, kernel, kernel), zero_point)
            layer = Convolution(**numbers, stride=stride, padding=padding, pool=pool)
        if min(sizes) < 1:
            break
        layers.append(layer)
        channels, (height, width) = out, sizes
        zero_point = getattr(layer, "zero_point", zero_point)
    features = channels * height * width
    for last in [False] * draw(st.integers(0, 1)) + [True] * (draw(st.booleans()) or not layers):
        out = draw(st.sampled_from([1, 10, 64, 70]))
        numbers = layer_numbers(draw, rng, out, (out, features), zero_point)
        layers.append(Linear(**numbers, floats=last and draw(st.booleans())))
        features, zero_point = out, numbers["zero_point"]
    count, seed = draw(st.integers(0, 9)), draw(st.integers(0, 2**32 - 1))
    given = draw(st.sampled_from([first_zero_point, 0]))  # what numbers are rounded to need not be what a layer takes
    return Network(layers, shape, scale=0.02, zero_point=given), Images((count, *shape), seed)


class Images(NamedTuple):
    """Images of that shape, (N, C, H, W); a name that is shorter than its numbers."""

    shape: tuple[int, ...]
    seed: int

    @property
    def codes(self) -> np.ndarray:
        """As uint8."""
        return np.random.default_rng(self.seed).integers(0, 256, self.shape, np.uint8)

    @property
    def numbers(self) -> np.ndarray:
        """As float32, some of them beyond what codes can say."""
        return np.random.default_rng(self.seed).normal(1.5, 2.0, self.shape).astype(np.float32)
