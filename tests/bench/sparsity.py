"""One launch of the measurements of layers without zeros: `python -m tests.bench.sparsity SEED SECONDS`; its rows:

* `linear_512x512x128_90` and so on, for outputs x inputs x batch and percent of zeros: milliseconds of `SparseLinear`,
  from rows of inputs to rows of outputs; `..._numpy`, `..._dense`, `..._scipy`, `..._torch`: over it the times of
  NumPy's product with the zeros, of the best dense one that we have, of SciPy's and of PyTorch's sparse (CSR) products,
  all from rows to rows, too; `..._scipy_columns`, `..._torch_columns`: those two with inputs and outputs by columns,
  one for each image, which is the layout that they like best;
* `linear_1024x1024x256_90_threads`, `..._numpy_threads`, `..._dense_threads`, `..._torch_threads`: on all threads,
  without SciPy, which has one.
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
from tests.bench.threads import ONE, Threads, all_threads
from tests.bench.turns import ratio
from tinytorch import backend, nn, no_grad
from tinytorch.compression import MagnitudePruner, SparseLinear
from tinytorch.kernels import matmul, sparse

Found = dict[str, tuple[float, Wanted]]

LINEAR = ((512, 512, 128), (1024, 1024, 256), (256, 2304, 256))  # outputs, inputs, batch
AIMS: dict[int, tuple[float | None, ...]] = {  # by percent of zeros: over NumPy, over our best dense, over the peers
    50: (None, None, None), 70: (2.0, 1.0, 3.0), 90: (5.5, 2.7, 3.0), 95: (10.0, 4.5, 3.0),
}  # fmt: skip


def pruned_linear(outputs: int, inputs: int, percent: int, rng: np.random.Generator) -> nn.Linear:
    """Return a layer without bias whose smallest weights are zero."""
    layer = nn.Linear(inputs, outputs, bias=False, rng=rng)
    MagnitudePruner(percent / 100).prepare(layer).finalize()
    return layer


def scipys(weight: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Return SciPy's product of a sparse matrix (O, I) with columns (I, N)."""
    return scipy.sparse.csr_matrix(weight).__matmul__


def torchs(weight: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Return PyTorch's product of a sparse matrix (O, I) with columns (I, N)."""
    import torch

    warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta state", UserWarning)
    matrix = torch.from_numpy(weight).to_sparse_csr()
    return lambda columns: torch.matmul(matrix, torch.from_numpy(columns)).numpy()


def by_rows(product: Callable[[np.ndarray], np.ndarray], x: np.ndarray) -> Callable[[], np.ndarray]:
    """Return the same from rows (N, I) to rows (N, O), each row in one piece."""
    return lambda: np.ascontiguousarray(product(np.ascontiguousarray(x.T)).T)


def linear(
    shape: tuple[int, int, int], percent: int, rng: np.random.Generator, seconds: float, threads: Threads = ONE
) -> Found:
    """One linear layer beside all others; on all threads beside those that use them."""
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
        *(by_rows(product, x) for product in (scipys(weight), torchs(weight))),
        *(partial(product, columns) for product in (scipys(weight), torchs(weight))),
    ]
    ours, *others = (np.asarray(f()) for f in functions)
    for theirs in (*others[:5], *(columns.T for columns in others[5:])):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-3)
    timed = list(range(len(functions)) if threads is ONE else (0, 1, 2, 3, 5))
    found = threads.rounds([functions[i] for i in timed], rng, seconds)
    times = np.full((len(found), len(functions)), np.nan)
    times[:, timed] = found
    medians, row = np.median(times, axis=0), f"linear_{outputs}x{inputs}x{batch}_{percent}"
    title = f"Linear layer of {outputs} x {inputs} weights, {percent} % of them zero, batch {batch}{threads.words}"
    over_numpy, over_dense, over_peers = AIMS[percent] if threads is ONE else (None, None, None)
    best = 2 + int(medians[2:4].argmin())
    rows: Found = {f"{row}{threads.suffix}": (1e3 * float(medians[0]), Wanted(title, "ms"))}
    for peer, index, words, aim in (
        ("numpy", 1, "NumPy's time with the zeros", over_numpy),
        ("dense", best, "our best time with the zeros", over_dense),
        ("scipy", 4, "SciPy's time without them", over_peers), ("torch", 5, "PyTorch's time without them", over_peers),
        ("scipy_columns", 6, "SciPy's time without them, by columns", None),
        ("torch_columns", 7, "PyTorch's time without them, by columns", None),
    ):  # fmt: skip
        if index in timed:
            over = Wanted(f"{title}, {words} over it", "x", aim)
            rows[f"{row}_{peer}{threads.suffix}"] = ratio(times, index, 0), over
    return rows


def main(seed: int, seconds: float) -> None:
    """Measure and print."""
    import torch

    torch.set_num_threads(1)
    rng, rows = np.random.default_rng(seed), dict[str, tuple[float, Wanted]]()
    share = seconds / (len(LINEAR) * len(AIMS))
    with torch.no_grad(), no_grad(), backend("numba"):
        for shape in LINEAR:
            for percent in AIMS:
                rows |= linear(shape, percent, rng, 0.95 * share)
        with all_threads() as threads:
            if threads.count > 1:
                rows |= linear(LINEAR[1], 90, rng, 0.05 * seconds, threads)
    report(rows)


if __name__ == "__main__":
    with threadpool_limits(1):
        main(int(sys.argv[1]), float(sys.argv[2]))
