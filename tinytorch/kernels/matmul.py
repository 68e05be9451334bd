"""The matrix product c = a b, from the definition to the speed of the machine, one change at a time.

Every rung takes a (M, K) and b (K, N) and returns a new (M, N): c[i, j] = sum_k a[i, k] * b[k, j]. All of them do the
same 2 M N K operations; what changes is the order of the loops, and who runs them.

`matmul` is what the layers call: it takes batches of matrices too, and goes by `tinytorch.backend`.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tinytorch.kernels.backend import compiled, kernel


def _check(a: np.ndarray, b: np.ndarray) -> None:
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[0]:
        raise ValueError(f"a matrix product takes shapes (M, K) and (K, N), got {a.shape} and {b.shape}")


def matmul_naive(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Rung 0, the definition: for each number of the result, one sum over k.

    Python looks up, checks and boxes both factors, the product and the sum anew each time: a hundred operations of the
    processor and more for two of arithmetic. b is walked down its columns, a whole row further at each step.

    a (M, K), b (K, N) -> (M, N). A ValueError names shapes that do not fit.
    """
    _check(a, b)
    (m, depth), n = a.shape, b.shape[1]
    out = np.empty((m, n), np.result_type(a, b))
    for i in range(m):
        for j in range(n):
            total = out.dtype.type(0)
            for k in range(depth):
                total += a[i, k] * b[k, j]
            out[i, j] = total
    return out


def matmul_reordered(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Rung 1, the loops in the order i, k, j: all that is touched in the innermost lies side by side.

    A row of b and a row of the result are walked in the order of their memory, so that each cache line that comes in
    is used whole. The sum waits in memory meanwhile, which costs Python another look-up.

    a (M, K), b (K, N) -> (M, N). A ValueError names shapes that do not fit.
    """
    _check(a, b)
    (m, depth), n = a.shape, b.shape[1]
    out = np.zeros((m, n), np.result_type(a, b))
    for i in range(m):
        for k in range(depth):
            x = a[i, k]
            for j in range(n):
                out[i, j] += x * b[k, j]
    return out


def matmul_tiled(a: np.ndarray, b: np.ndarray, tile_size: int = 32) -> np.ndarray:
    """Rung 2, square tiles: three loops over tiles, and inside of each the loops of `matmul_reordered`.

    A tile of b, once it is in the cache, serves tile_size rows of a before it is given up; without tiles the whole of b
    comes by for each row. The three tiles at work should fit in the cache: 3 * 4 * tile_size^2 bytes of float32, 12 KiB
    of a usual 32 KiB for 32.

    a (M, K), b (K, N) -> (M, N). A ValueError names shapes that do not fit, or a tile_size below 1.
    """
    _check(a, b)
    if tile_size < 1:
        raise ValueError(f"tiles have at least one row, got tile_size={tile_size}")
    (m, depth), n = a.shape, b.shape[1]
    out = np.zeros((m, n), np.result_type(a, b))
    for i0 in range(0, m, tile_size):
        for k0 in range(0, depth, tile_size):
            for j0 in range(0, n, tile_size):
                for i in range(i0, min(i0 + tile_size, m)):
                    for k in range(k0, min(k0 + tile_size, depth)):
                        x = a[i, k]
                        for j in range(j0, min(j0 + tile_size, n)):
                            out[i, j] += x * b[k, j]
    return out


def matmul_vectorized(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Rung 3, whole rows: the innermost loop of `matmul_reordered` becomes two operations of NumPy.

    Python's price is paid once for a row of N numbers instead of once for each. What remains of it: M * K times two
    calls, and a row of products that is written only to be read again.

    a (M, K), b (K, N) -> (M, N). A ValueError names shapes that do not fit.
    """
    _check(a, b)
    m, depth = a.shape
    out = np.zeros((m, b.shape[1]), np.result_type(a, b))
    for i in range(m):
        for k in range(depth):
            out[i] += a[i, k] * b[k]
    return out


def matmul_numba(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Rung 4, the loops of `matmul_reordered` as machine code: Numba compiles them when they are first called.

    Nothing is boxed, and LLVM turns the innermost loop into vector instructions. But each multiplication still waits
    for a number of b and one of the result to come from the cache, and the sum goes back there.

    Raises
    ------
    ValueError
        If they are not a (M, K) and b (K, N).
    TypeError
        If the result would be neither float32, float64 nor an integer.
    ModuleNotFoundError
        If Numba is not installed.
    """
    _check(a, b)
    dtype = np.result_type(a, b)
    if dtype not in (np.float32, np.float64) and dtype.kind not in "iu":
        raise TypeError(f"matmul_numba multiplies float32, float64 and integers, got {a.dtype} and {b.dtype}")
    out = np.zeros((a.shape[0], b.shape[1]), dtype)
    native = (np.require(x, x.dtype.newbyteorder("="), "A") for x in (a, b))
    compiled("matmul").loops(*native, out)
    return out


def matmul_simd(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Rung 5, packed panels and a tile of the result that never leaves the registers, for float32.

    Each number that is loaded serves a whole row or column of the tile, so that the multipliers need not wait; b is
    copied first, into the order in which it is read (`tinytorch/kernels/compiled/matmul.py`).

    Raises
    ------
    ValueError
        If they are not a (M, K) and b (K, N).
    TypeError
        If one is not float32.
    ModuleNotFoundError
        If Numba is not installed.
    """
    _check(a, b)
    for x in (a, b):
        if x.dtype != np.float32:
            raise TypeError(f"matmul_simd multiplies float32, not {x.dtype}: its vectors are made of those")
    return np.asarray(compiled("matmul").matmul_simd(np.require(a, None, "A"), np.require(b, None, "A")))


def matmul_blas(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The yardstick: NumPy hands the product to BLAS, whose inner loops people wrote in assembly.

    a (M, K), b (K, N) -> (M, N). A ValueError names shapes that do not fit.
    """
    _check(a, b)
    return np.matmul(a, b)


@kernel
def matmul(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Multiply (..., M, K) by (..., K, N): (..., M, N); the axes in front broadcast, as for `np.matmul`.

    Raises
    ------
    ValueError
        If one has fewer than two axes, the inner ones differ, or those in front do not broadcast.
    """
    batch_shape(a, b)
    return np.matmul(a, b)


@matmul.naive
def matmul_of_batches(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """`matmul_naive` of each pair of matrices."""
    out = np.empty((*batch_shape(a, b), a.shape[-2], b.shape[-1]), np.result_type(a, b))
    for at, left, right in pairs(a, b, out.shape[:-2]):
        out[at] = matmul_naive(left, right)
    return out


@kernel
def linear(x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None) -> np.ndarray:
    """Multiply x (R, in) by the transpose of weight (out, in), add bias (out,): (R, out)."""
    y = np.matmul(x, weight.T)
    if bias is not None:
        y += bias
    return y


@linear.naive
def linear_naive(x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None) -> np.ndarray:
    """Add the bias to each number of `matmul_naive`."""
    y = matmul_naive(x, weight.T)
    if bias is not None:
        for i in range(y.shape[0]):
            for j in range(y.shape[1]):
                y[i, j] += bias[j]
    return y


def batch_shape(a: np.ndarray, b: np.ndarray) -> tuple[int, ...]:
    """Return the axes in front of the product of a (..., M, K) and b (..., K, N).

    Raises
    ------
    ValueError
        If one has fewer than two axes, the inner ones differ, or those in front do not broadcast.
    """
    if a.ndim == 2 and b.ndim == 2 and a.shape[1] == b.shape[0]:
        return ()
    try:
        if a.ndim >= 2 and b.ndim >= 2 and a.shape[-1] == b.shape[-2]:
            return np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    except ValueError:
        pass
    raise ValueError(f"a matrix product takes shapes (..., M, K) and (..., K, N), got {a.shape} and {b.shape}")


def pairs(
    a: np.ndarray, b: np.ndarray, batch: tuple[int, ...]
) -> Iterator[tuple[tuple[int, ...], np.ndarray, np.ndarray]]:
    """Yield each place in a `batch` of products and the two matrices that belong there, (M, K) and (K, N), as views."""
    a, b = (x.reshape((1,) * (len(batch) + 2 - x.ndim) + x.shape) for x in (a, b))
    for at in np.ndindex(batch):  # an axis of length 1 stands still: i % 1 is 0
        left, right = (x[tuple(i % n for i, n in zip(at, x.shape[:-2], strict=True))] for x in (a, b))
        yield at, left, right
