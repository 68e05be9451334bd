"""One launch of the measurements of layers without zeros: `python -m tests.bench.sparsity SEED SECONDS`; its rows:

* `linear_512x512x128_90` and so on, for outputs x inputs x batch and percent of zeros: milliseconds of `SparseLinear`,
  from rows of inputs to rows of outputs; `..._numpy`, `..._dense`, `..._scipy`, `..._torch`: over it the times of
  NumPy's product with the zeros, of the best dense one that we have, of SciPy's and of PyTorch's sparse (CSR) products,
  each with inputs in the layout that it likes best;
* `cnn_50` and so on: milliseconds of the reference CNN on 32 images, the smallest of all weights zero, through
  `to_sparse`; `..._dense`: the time of our compiled plan of the dense model over it;
* `filters_50`: the same of a model with half of the filters removed, no weight zero: `to_sparse` takes its dense form.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import scipy.sparse
from threadpoolctl import threadpool_limits

from tests.bench.launches import Wanted, report
from tests.bench.turns import ratio, timer
from tinytorch import Tensor, backend, data, nn, no_grad, zoo
from tinytorch.acceleration import Plan
from tinytorch.compression import MagnitudePruner, SparseLinear, prune_filters, to_sparse
from tinytorch.kernels import matmul, sparse

Found = dict[str, tuple[float, Wanted]]

LINEAR = ((512, 512, 128), (1024, 1024, 256), (256, 2304, 256))  # outputs, inputs, batch
AIMS = {70: (2.0, 1.0), 90: (5.5, 2.7), 95: (10.0, 4.5)}  # percent of zeros: over NumPy, over our best dense
PEERS = 3.0  # over SciPy and PyTorch
LEVELS = (50, 70, 80, 90, 95)
CNN, FILTERS = 1.5, 2.5


def pruned_linear(outputs: int, inputs: int, percent: int, rng: np.random.Generator) -> nn.Linear:
    """Return a layer without bias whose smallest weights are zero."""
    layer = nn.Linear(inputs, outputs, bias=False, rng=rng)
    MagnitudePruner(percent / 100).prepare(layer).finalize()
    return layer


def torchs(weight: np.ndarray, x: np.ndarray) -> Callable[[], Any]:
    """Return PyTorch's product of a sparse matrix (O, I) and x (I, N)."""
    import torch

    warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta state", UserWarning)
    return partial(torch.matmul, torch.from_numpy(weight).to_sparse_csr(), torch.from_numpy(x))


def linear(shape: tuple[int, int, int], percent: int, rng: np.random.Generator, seconds: float) -> Found:
    """One linear layer beside all others."""
    outputs, inputs, batch = shape
    dense = pruned_linear(outputs, inputs, percent, rng)
    weight, x = dense.weight.data, rng.standard_normal((batch, inputs)).astype(np.float32)
    columns = np.ascontiguousarray(x.T)
    in_panels = sparse.Network([sparse.Linear(sparse.Rows.from_dense(weight), dense=True)], (inputs,))
    functions: list[Callable[[], Any]] = [
        partial(SparseLinear.from_dense(dense).network((inputs,)), x),
        partial(np.matmul, x, weight.T),
        partial(matmul.linear, x, weight, None),
        partial(in_panels, x),
        partial(scipy.sparse.csr_matrix(weight).__matmul__, columns),
        torchs(weight, columns),
    ]
    ours, *others = (np.asarray(f()) for f in functions)
    for theirs in (*others[:3], *(columns.T for columns in others[3:])):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-3)
    times = timer(rng, seconds).rounds(functions)
    medians, row = np.median(times, axis=0), f"linear_{outputs}x{inputs}x{batch}_{percent}"
    title = f"Linear layer of {outputs} x {inputs} weights, {percent} % of them zero, batch {batch}"
    over_numpy, over_dense = AIMS[percent]
    best = 2 + int(medians[2:4].argmin())
    rows: Found = {row: (1e3 * float(medians[0]), Wanted(title, "ms"))}
    for peer, index, words, aim in (
        ("numpy", 1, "NumPy's time with the zeros", over_numpy),
        ("dense", best, "our best time with the zeros", over_dense),
        ("scipy", 4, "SciPy's time without them", PEERS), ("torch", 5, "PyTorch's time without them", PEERS),
    ):  # fmt: skip
        rows[f"{row}_{peer}"] = ratio(times, index, 0), Wanted(f"{title}, {words} over it", "x", aim)
    return rows


def whole(row: str, title: str, ours: Callable[..., Any], aim: float | None, rng: Any, seconds: float) -> Found:
    """A whole network beside the compiled plan of the dense one, on 32 images."""
    x = data.fashion_mnist("test").images[:32]
    plan = Plan(zoo.load("reference_cnn"), x.shape[1:])
    times = timer(rng, seconds).rounds([partial(ours, x), partial(plan, x)])
    label = f"Reference CNN, {title}, 32 images"
    return {
        row: (1e3 * float(np.median(times[:, 0])), Wanted(label, "ms")),
        f"{row}_dense": (ratio(times, 1, 0), Wanted(f"{label}, time of the dense plan over it", "x", aim)),
    }


def pruned_network(percent: int, rng: np.random.Generator, seconds: float) -> Found:
    """The reference CNN without its smallest weights."""
    model, x = zoo.load("reference_cnn"), data.fashion_mnist("test").images[:32]
    MagnitudePruner(percent / 100).prepare(model).finalize()
    ours = to_sparse(model)
    np.testing.assert_allclose(ours(x).data, model(Tensor(x)).data, rtol=0, atol=1e-3)
    aim = CNN if percent == 90 else None
    return whole(f"cnn_{percent}", f"{percent} % of all weights zero", ours, aim, rng, seconds)


def smaller_network(rng: np.random.Generator, seconds: float) -> Found:
    """The reference CNN without half of its filters."""
    model, x = prune_filters(zoo.load("reference_cnn"), 0.5), data.fashion_mnist("test").images[:32]
    ours = to_sparse(model)
    np.testing.assert_allclose(ours(x).data, model(Tensor(x)).data, rtol=0, atol=1e-3)
    return whole("filters_50", "half of the filters removed", ours, FILTERS, rng, seconds)


def main(seed: int, seconds: float) -> None:
    """Measure and print."""
    import torch

    torch.set_num_threads(1)
    rng, rows = np.random.default_rng(seed), dict[str, tuple[float, Wanted]]()
    share = seconds / (len(LINEAR) * len(AIMS) + len(LEVELS) + 1)
    with torch.no_grad(), no_grad(), backend("numba"):
        for shape in LINEAR:
            for percent in AIMS:
                rows |= linear(shape, percent, rng, share)
        for percent in LEVELS:
            rows |= pruned_network(percent, rng, share)
        rows |= smaller_network(rng, share)
    report(rows)


if __name__ == "__main__":
    with threadpool_limits(1):
        main(int(sys.argv[1]), float(sys.argv[2]))
