"""The ladder of matrix products, and the products that the layers call."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinytorch import Tensor, backend
from tinytorch.kernels import matmul as kernels

LADDER = (
    kernels.matmul_naive,
    kernels.matmul_reordered,
    kernels.matmul_tiled,
    kernels.matmul_vectorized,
    kernels.matmul_numba,
    kernels.matmul_simd,
    kernels.matmul_blas,
)
ANY_DTYPE = tuple(f for f in LADDER if f is not kernels.matmul_simd)
BACKENDS = ("naive", "numpy", "numba")
few = settings(max_examples=40)
sides = st.integers(0, 9)
seeds = st.integers(0, 2**32 - 1)
rungs = pytest.mark.parametrize("rung", LADDER, ids=lambda f: f.__name__)


def whole_numbers(rng: np.random.Generator, *shape: int, dtype: type = np.float32) -> np.ndarray:
    """Small whole numbers: their sums of products are exact, so that every order of adding gives the same."""
    return rng.integers(-8, 9, shape).astype(dtype)


def layouts(x: np.ndarray) -> dict[str, np.ndarray]:
    """The same numbers lying in memory in every way that a caller might come up with."""
    bytes_ = np.zeros(x.nbytes + 1, np.uint8)
    unaligned = bytes_[1:].view(x.dtype).reshape(x.shape)
    unaligned[...] = x
    read_only = x.copy()
    read_only.flags.writeable = False
    return {
        "in Fortran's order": np.asfortranarray(x),
        "every second": np.repeat(np.repeat(x, 2, 0), 3, 1)[::2, ::3],
        "backwards": x[::-1, ::-1].copy()[::-1, ::-1],
        "from an odd byte on": unaligned,
        "read-only": read_only,
        "the other byte order": x.astype(x.dtype.newbyteorder()),
    }


@rungs
@few
@given(m=sides, k=sides, n=sides, seed=seeds)
def test_every_rung_equals_the_definition_for_any_shape(rung, m, k, n, seed):
    """Zero sizes among them: a sum of nothing is 0."""
    rng = np.random.default_rng(seed)
    a, b = whole_numbers(rng, m, k), whole_numbers(rng, k, n)
    out = rung(a, b)
    assert out.dtype == np.float32
    assert out.shape == (m, n)
    assert out.tolist() == [[sum(a[i, t] * b[t, j] for t in range(k)) for j in range(n)] for i in range(m)]


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 300, 70), (70, 300, 1), (33, 65, 129), (130, 2050, 33), (40, 17, 64)])
@pytest.mark.parametrize("b_order", "CF")
def test_compiled_rungs_are_exact_where_blocks_and_panels_end(shape, b_order):
    m, k, n = shape
    rng = np.random.default_rng(0)
    a, b = whole_numbers(rng, m, k), np.asarray(whole_numbers(rng, k, n), order=b_order)
    expected = a.astype(np.int64) @ b.astype(np.int64)
    np.testing.assert_array_equal(kernels.matmul_simd(a, b), expected)
    np.testing.assert_array_equal(kernels.matmul_numba(a, b), expected)


@pytest.mark.parametrize("rung", ANY_DTYPE, ids=lambda f: f.__name__)
@pytest.mark.parametrize("dtype", [np.float64, np.int8, np.int32, np.uint16])
def test_other_dtypes_give_what_numpy_gives(rung, dtype):
    a, b = (np.random.default_rng(0).integers(0, 3, s).astype(dtype) for s in ((4, 5), (5, 3)))
    out = rung(a, b)
    assert out.dtype == dtype
    np.testing.assert_array_equal(out, a @ b)


def test_naive_sums_with_the_precision_of_its_numbers():
    """2^24 + 1 is the first whole number that float32 lacks."""
    a, b = np.array([[2.0**24, 1.0]]), np.ones((2, 1))
    assert kernels.matmul_naive(a, b)[0, 0] == 2.0**24 + 1
    assert kernels.matmul_naive(a.astype(np.float32), b.astype(np.float32))[0, 0] == 2.0**24


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.int32, np.bool_])
@pytest.mark.parametrize("other", ["first", "second"])
def test_simd_names_the_dtype_that_it_does_not_take(dtype, other):
    a, b = np.ones((2, 2), np.float32), np.ones((2, 2), dtype)
    with pytest.raises(TypeError, match=np.dtype(dtype).name):
        kernels.matmul_simd(*((b, a) if other == "first" else (a, b)))


@pytest.mark.parametrize("dtype", [np.float16, np.bool_, np.complex64])
def test_loops_of_numba_name_the_dtype_that_they_do_not_take(dtype):
    with pytest.raises(TypeError, match=np.dtype(dtype).name):
        kernels.matmul_numba(np.ones((2, 2), dtype), np.ones((2, 2), dtype))


@rungs
@pytest.mark.parametrize(
    "shapes", [((2, 3), (4, 5)), ((3,), (3, 2)), ((2, 3), (3,)), ((1, 2, 3), (3, 4)), ((), (1, 1))]
)
def test_shapes_that_do_not_fit_are_named(rung, shapes):
    with pytest.raises(ValueError, match=r"\(M, K\) and \(K, N\)") as error:
        rung(*(np.ones(s, np.float32) for s in shapes))
    assert all(str(s) in str(error.value) for s in shapes)


@rungs
@pytest.mark.parametrize("which", range(2))
@pytest.mark.parametrize("layout", layouts(np.ones((1, 1))))
def test_memory_may_lie_in_any_way(rung, layout, which):
    rng = np.random.default_rng(0)
    pair = [whole_numbers(rng, 40, 50), whole_numbers(rng, 50, 70)]
    if rung in LADDER[:3]:
        pair = [pair[0][:3, :4], pair[1][:4, :5]]
    expected = pair[0] @ pair[1]
    pair[which] = layouts(pair[which])[layout]
    if rung is kernels.matmul_simd and layout == "the other byte order":
        with pytest.raises(TypeError):  # which is another dtype
            rung(*pair)
    else:
        np.testing.assert_array_equal(rung(*pair), expected)


@pytest.mark.filterwarnings("ignore:(invalid value|overflow):RuntimeWarning")
@rungs
@few
@given(place=st.tuples(*[st.integers(0, 6)] * 2), value=st.sampled_from([np.nan, np.inf, -np.inf]), data=st.data())
def test_nan_and_infinity_go_where_numpy_sends_them(rung, place, value, data):
    """In one number of a or b, which decides over one row or column of the result; zeros make NaN of infinity."""
    rng = np.random.default_rng(0)
    pair = [whole_numbers(rng, 7, 7), whole_numbers(rng, 7, 7)]
    data.draw(st.sampled_from(pair))[place] = value
    np.testing.assert_array_equal(rung(*pair), np.matmul(*(x.astype(np.float64) for x in pair)).astype(np.float32))


class Watched(np.ndarray):
    """An array that writes down which of its elements are read."""

    reads: list[tuple[int, int]]

    def __getitem__(self, place):
        self.reads.append(place)
        return np.asarray(self).item(place)


def reads_of_b(rung, *options) -> list[tuple[int, int]]:
    b = np.ones((4, 4)).view(Watched)
    b.reads = []
    rung(np.ones((4, 4)), b, *options)
    return b.reads


def test_naive_walks_down_the_columns_of_b_and_reordered_along_its_rows():
    row, column = [(0, j) for j in range(4)], [(k, 0) for k in range(4)]
    assert reads_of_b(kernels.matmul_naive)[:4] == column
    assert reads_of_b(kernels.matmul_reordered)[:4] == row


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_tiled_uses_a_tile_of_b_for_all_rows_of_a_tile_before_it_goes_on(size):
    reads = reads_of_b(kernels.matmul_tiled, size)
    tile = [(k, j) for k in range(size) for j in range(size)]
    assert reads[: size**3] == tile * size
    assert len(reads) == 4**3


@pytest.mark.parametrize("size", [1, 3, 8, 100])
def test_tiles_need_not_divide_the_matrices(size):
    rng = np.random.default_rng(0)
    a, b = whole_numbers(rng, 7, 5), whole_numbers(rng, 5, 9)
    np.testing.assert_array_equal(kernels.matmul_tiled(a, b, size), a @ b)


@pytest.mark.parametrize("size", [0, -1])
def test_tiles_without_rows_are_refused(size):
    with pytest.raises(ValueError, match=f"tile_size={size}"):
        kernels.matmul_tiled(np.ones((2, 2)), np.ones((2, 2)), size)


@pytest.mark.parametrize("name", BACKENDS)
@few
@given(
    batches=st.sampled_from(
        [((), ()), ((3,), ()), ((), (3,)), ((2, 3), (3,)), ((2, 1), (1, 3)), ((0,), ()), ((2, 0), (1,)), ((1, 1), (1,))]
    ),
    sizes=st.tuples(sides, sides, sides),
    turned=st.tuples(st.booleans(), st.booleans()),
    seed=seeds,
)
def test_batches_broadcast_as_in_numpy(name, batches, sizes, turned, seed):
    rng, (m, k, n) = np.random.default_rng(seed), sizes
    pair = []
    for batch, shape, turn in zip(batches, ((m, k), (k, n)), turned, strict=True):
        x = whole_numbers(rng, *batch, *(shape[::-1] if turn else shape))
        pair.append(x.swapaxes(-1, -2) if turn else x)
    with backend(name):
        out = kernels.matmul(*pair)
    expected = np.matmul(*pair)
    assert (out.shape, out.dtype) == (expected.shape, expected.dtype)
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("shapes", [((2, 3), (4, 5)), ((3,), (3, 2)), ((2, 2, 3), (3, 3, 4)), ((2, 3), ())])
def test_batches_that_do_not_fit_are_named_on_every_backend(name, shapes):
    with backend(name), pytest.raises(ValueError, match=r"\(\.\.\., M, K\)") as error:
        kernels.matmul(*(np.ones(s, np.float32) for s in shapes))
    assert all(str(s) in str(error.value) for s in shapes)


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("bias", [True, False])
@few
@given(sizes=st.tuples(sides, sides, sides), seed=seeds)
def test_linear_multiplies_by_the_transpose_and_adds_the_bias(name, bias, sizes, seed):
    rng, (rows, n_in, n_out) = np.random.default_rng(seed), sizes
    x, weight, b = whole_numbers(rng, rows, n_in), whole_numbers(rng, n_out, n_in), whole_numbers(rng, n_out)
    before = x.copy(), weight.copy(), b.copy()
    with backend(name):
        y = kernels.linear(x, weight, b if bias else None)
    np.testing.assert_array_equal(y, x @ weight.T + (b if bias else 0))
    assert all(np.array_equal(now, then) for now, then in zip((x, weight, b), before, strict=True))


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("shapes", [((4,), (4,)), ((4,), (4, 3)), ((2, 4), (4,)), ((5, 2, 4), (4,)), ((4,), (5, 4, 3))])
def test_tensors_of_one_axis_multiply_as_in_numpy(name, shapes):
    rng = np.random.default_rng(0)
    arrays = [whole_numbers(rng, *s) for s in shapes]
    with backend(name):
        a, b = (Tensor(x, requires_grad=True) for x in arrays)
        y = a @ b
        y.sum().backward()
    np.testing.assert_array_equal(y.data, arrays[0] @ arrays[1])
    with backend("numpy"):
        c, d = (Tensor(x, requires_grad=True) for x in arrays)
        (c @ d).sum().backward()
    np.testing.assert_array_equal(a.grad.data, c.grad.data)
    np.testing.assert_array_equal(b.grad.data, d.grad.data)


@pytest.mark.parametrize("name", BACKENDS)
def test_tensors_of_integers_multiply(name):
    with backend(name):
        y = Tensor(np.arange(6).reshape(2, 3)) @ Tensor(np.arange(6).reshape(3, 2))
    np.testing.assert_array_equal(y.data, [[10, 13], [28, 40]])
