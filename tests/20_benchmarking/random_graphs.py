"""Graphs drawn at random whose shapes fit: any layers of images one behind the other, in any order that makes sense."""

import importlib
import random
from typing import Any

import numpy as np

graphs = importlib.import_module("tests.20_benchmarking.graphs")
node = graphs.node


class Builder:
    """Layers on images, numbers or codes; `shape` is what the next one gets."""

    def __init__(self, seed: int) -> None:
        self.rng, self.numbers = random.Random(seed), np.random.default_rng(seed)
        self.shape: tuple[int, ...] = (1, 28, 28)
        self.codes = False
        self.nodes: list[dict[str, Any]] = []
        self.arrays: dict[str, np.ndarray] = {}

    def add(self, op: str, tensors: tuple[np.ndarray, ...] = (), **attributes: Any) -> None:
        number = len(self.nodes)
        names = [f"t{number}.{i}" for i in range(len(tensors))]
        self.arrays.update(zip(names, tensors, strict=True))
        before = f"v{number - 1}" if number else "x"
        self.nodes.append(node(op, " ".join([before, *names]), f"v{number}", **attributes))

    def floats(self, *shape: int) -> np.ndarray:
        return self.numbers.normal(0, 0.3, shape).astype(np.float32)

    def meaning(self) -> dict[str, Any]:
        bits = self.rng.choice([8, 8, 4])
        return {"scale": self.rng.choice([1, 0.02, 1e-3]), "zero_point": self.rng.randrange(2**bits), "bits": bits}

    def weights(self, outputs: int, *rest: int) -> tuple[np.ndarray, ...]:
        codes = self.numbers.integers(-128, 128, (outputs, *rest), np.int8)
        scales = self.numbers.uniform(1e-4, 1e-2, outputs).astype(np.float32)
        return codes, scales, self.numbers.integers(-9999, 9999, outputs, np.int32)

    def rows(self, outputs: int, columns: int) -> tuple[np.ndarray, ...]:
        """Return weights in CSR, of which one in five is not zero; some rows may have none."""
        kept = self.numbers.random((outputs, columns)) < 0.2
        kept[0, 0] = True
        rows, places = np.nonzero(kept)
        indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=outputs))]).astype(np.int32)
        return self.floats(len(places)), places.astype(np.int32), indptr

    def windows(self, kernel: int, stride: int, padding: int = 0, pool: int = 1) -> bool:
        """Go on to the shape behind windows, if there is one."""
        height, width = (((n + 2 * padding - kernel) // stride + 1) // pool for n in self.shape[1:])
        fits = min(n + 2 * padding for n in self.shape[1:]) >= kernel and min(height, width) >= 1
        if fits:
            self.shape = (self.shape[0], height, width)
        return fits

    def pooling(self) -> None:
        kernel, stride = self.rng.randint(1, 3), self.rng.randint(1, 3)
        if self.windows(kernel, stride):
            if self.codes:
                self.add("qpool2d", kernel_size=kernel, stride=stride, mean=self.rng.random() < 0.5)
            else:
                self.add(self.rng.choice(["max_pool2d", "avg_pool2d"]), kernel_size=kernel, stride=stride)

    def convolution(self) -> None:
        kernel, stride, padding = self.rng.randint(1, 4), self.rng.randint(1, 2), self.rng.randint(0, 2)
        pool = self.rng.randint(1, 2) if self.codes else 1
        (inputs, *_), outputs = self.shape, self.rng.randint(1, 6)
        if any("linear" in made["op"] for made in self.nodes):  # a test of its own has this order
            return
        if not self.windows(kernel, stride, padding, pool):
            return
        self.shape = (outputs, *self.shape[1:])
        sizes = {"stride": stride, "padding": padding}
        if self.codes:
            more = {"pool": pool, "relu": self.rng.random() < 0.5}
            self.add("qconv2d", self.weights(outputs, inputs, kernel, kernel), **self.meaning(), **sizes, **more)
        elif self.rng.random() < 0.5:
            bias = (self.floats(outputs),) * self.rng.randint(0, 1)
            self.add("conv2d", (self.floats(outputs, inputs, kernel, kernel), *bias), **sizes)
        else:
            self.add("sparse_conv2d", self.rows(outputs, inputs * kernel**2), kernel_size=kernel, **sizes)

    def linear(self, outputs: int) -> None:
        """Add a linear layer: of images, too, whose last axis it works on, unless they are codes."""
        *before, inputs = self.shape
        self.shape = (*before, outputs)
        if self.codes:
            more = {"floats": True} if self.rng.random() < 0.4 else self.meaning() | {"relu": self.rng.random() < 0.5}
            self.add("qlinear", self.weights(outputs, inputs), **more)
            self.codes = "floats" not in more
        elif self.rng.random() < 0.5:
            self.add("linear", (self.floats(outputs, inputs), self.floats(outputs)))
        else:
            self.add("sparse_linear", (*self.rows(outputs, inputs), self.floats(outputs)))

    def other(self) -> None:
        """Add what changes no shape."""
        ops = ["dequantize"] if self.codes else ["relu", "gelu", "quantize", "batch_norm2d", "layer_norm"]
        op = self.rng.choice(ops)
        if op == "quantize":
            self.add(op, **self.meaning())
        elif op == "layer_norm":
            self.add(op, (self.floats(self.shape[-1]), self.floats(self.shape[-1])))
        elif op != "batch_norm2d":
            self.add(op)
        elif len(self.shape) == 3:
            self.add(op, (*(self.floats(self.shape[0]) for _ in range(3)), np.abs(self.floats(self.shape[0]))))
        self.codes = op == "quantize" or (self.codes and op != "dequantize")

    def flatten(self) -> None:
        self.shape = (int(np.prod(self.shape)),)
        self.add("flatten")


def drawn(seed: int) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return a graph for images, and its tensors."""
    b = Builder(seed)
    for _ in range(b.rng.randint(0, 6)):
        b.rng.choice([b.pooling, b.convolution, b.other, *[lambda: b.codes or b.linear(4)] * (b.rng.random() < 0.3)])()
    b.flatten()
    for _ in range(b.rng.randint(0, 4)):
        b.rng.choice([b.flatten, b.other, lambda: b.linear(b.rng.randint(1, 20))])()
    b.linear(10)
    if b.codes:
        b.add("dequantize")
    b.nodes[-1]["outputs"] = ["y"]
    return graphs.graph(graphs.IMAGES, *b.nodes), b.arrays
