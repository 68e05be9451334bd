"""What the graph promises: who gets gradients, when, of which dtype, and what is refused."""

import contextlib
import threading

import numpy as np
import pytest

from tinytorch import Function, Tensor, cat, is_grad_enabled, no_grad


def leaf(*values: float) -> Tensor:
    return Tensor(np.array(values, np.float32), requires_grad=True)


# Gradients


def test_gradients_add_up_over_backward_calls_until_they_are_reset():
    x = leaf(1.0, 2.0)
    for times in (1, 2, 3):
        (x * 3).sum().backward()
        np.testing.assert_array_equal(x.grad.data, [3.0 * times] * 2)


def test_a_tensor_used_twice_gets_the_sum_of_both_gradients():
    x = leaf(3.0)
    y = x * x  # the same tensor as both inputs, and its result used twice
    (y + y * x).sum().backward()
    np.testing.assert_array_equal(x.grad.data, [2 * 3 + 3 * 9])


def test_each_node_is_walked_once_however_many_paths_lead_to_it():
    """Twenty doublings: a million paths, 20 calls."""
    x = leaf(1.0)
    y = x
    for _ in range(20):
        y = y + y
    y.backward()
    assert x.grad.item() == 2.0**20


def test_a_chain_of_5000_operations_needs_no_recursion():
    x = leaf(1.0)
    y = x
    for _ in range(5000):
        y = y + 1.0
    y.backward()
    assert x.grad.item() == 1.0


def test_a_second_backward_on_one_graph_says_what_to_do():
    y = (leaf(1.0) * 2).sum()
    y.backward()
    with pytest.raises(RuntimeError, match=r"SumBackward.*walked before.*run forward again"):
        y.backward()


def test_gradients_go_to_leaves_that_ask_for_them_and_to_no_other():
    asked, not_asked = leaf(2.0), Tensor([5.0])
    between = asked * not_asked
    between.sum().backward()
    assert asked.grad.item() == 5.0
    assert not_asked.grad is None
    assert between.grad is None
    assert (not_asked * 2).grad_fn is None


def test_detach_cuts_the_graph_and_keeps_the_memory():
    x = leaf(3.0)
    y = (x * 2).detach()
    assert not y.requires_grad
    (x * y).sum().backward()
    assert x.grad.item() == 6.0
    assert np.shares_memory(x.detach().data, x.data)


def test_gradients_of_leaves_never_share_memory():
    """Neither with one another, nor with the gradient that was passed in, nor with the data."""
    a, b, c = leaf(1.0, 2.0), leaf(1.0, 2.0), leaf(1.0, 2.0)
    handed = np.ones(2, np.float32)
    (a + b).backward(handed)
    c.backward(handed)
    (c.sum() + c.reshape(2, 1).sum()).backward()
    arrays = [handed, *(t.data for t in (a, b, c)), *(t.grad.data for t in (a, b, c))]
    assert not any(np.shares_memory(x, y) for i, x in enumerate(arrays) for y in arrays[:i])
    a.grad.data[...] = 7.0
    np.testing.assert_array_equal(b.grad.data, [1.0, 1.0])


def test_a_gradient_may_be_an_array_a_list_or_a_tensor():
    for gradient in (np.array([1.0, 2.0]), [1.0, 2.0], Tensor([1.0, 2.0])):
        x = leaf(1.0, 1.0)
        (x * 3).backward(gradient)
        np.testing.assert_array_equal(x.grad.data, [3.0, 6.0])


# Recording


def test_no_grad_records_nothing_as_context_and_as_decorator():
    x = leaf(1.0)

    @no_grad()
    def decorated(depth: int) -> Tensor:
        return decorated(depth - 1) if depth else x * 2

    with no_grad():
        y = x * 2
    for result in (y, decorated(0), decorated(3)):
        assert not result.requires_grad
        assert result.grad_fn is None
    assert is_grad_enabled()
    assert (x * 2).requires_grad


def test_no_grad_nests_and_ends_with_an_exception():
    outer = no_grad()
    with contextlib.suppress(KeyError), outer:
        with outer, no_grad():
            assert not is_grad_enabled()
        assert not is_grad_enabled()
        raise KeyError
    assert is_grad_enabled()


def test_no_grad_is_of_one_thread_also_where_threads_share_a_decorated_function():
    """The other thread enters the function first and leaves it first."""
    entered, may_leave, left = threading.Event(), threading.Event(), threading.Event()
    seen = {}

    @no_grad()
    def call(f, *events):
        for event in events:
            f(event)

    def other() -> None:
        seen["start"] = is_grad_enabled()
        with no_grad():
            call(lambda event: event.set() if event is entered else event.wait(10), entered, may_leave)
            seen["inside"] = is_grad_enabled()
        seen["end"] = is_grad_enabled()
        left.set()

    thread = threading.Thread(target=other)
    thread.start()
    assert entered.wait(10)
    assert is_grad_enabled()
    call(lambda event: event.set() if event is may_leave else event.wait(10), may_leave, left)
    thread.join(10)
    assert seen == {"start": True, "inside": False, "end": True}
    assert is_grad_enabled()


# Types


@pytest.mark.parametrize(
    ("data", "dtype"),
    [
        (1.5, np.float32), ([1.0, 2.0], np.float32), ([[1, 2.5]], np.float32), ([], np.float32),
        (3, np.int64), ([1, 2], np.int64), (True, bool), ([True, False], bool),
        (np.zeros(2), np.float64), (np.float64(1), np.float64), (np.zeros(2, np.float16), np.float16),
        (np.zeros(2, np.uint8), np.uint8), (Tensor(np.zeros(2)), np.float64),
    ],
)  # fmt: skip
def test_numbers_become_float32_and_arrays_keep_their_dtype(data, dtype):
    assert Tensor(data).dtype == dtype
    assert Tensor(data, dtype=np.float32).dtype == np.float32


SCALARS = [2, 2.5, True, np.float64(2.5), np.float32(2.5), np.int64(2), np.array(2.5)]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("scalar", SCALARS, ids=lambda s: f"{type(s).__name__} {s}")
def test_scalars_on_either_side_change_no_dtype(dtype, scalar):
    x = Tensor(np.array([1.0, 4.0], dtype), requires_grad=True)
    results = [x + scalar, scalar + x, x - scalar, scalar - x, x * scalar, scalar * x, x / scalar, scalar / x]
    results += [x.maximum(scalar), x.mean(), x.sum(), x.max(), x.exp(), x.gelu(), x.softmax(), x**2, x**0.5]
    assert {r.dtype for r in results} == {np.dtype(dtype)}
    for r in results:
        x.grad = None
        r.sum().backward()
        assert x.grad.dtype == dtype


def test_gradients_have_their_leafs_dtype_also_in_mixed_arithmetic():
    x = leaf(1.0, 2.0)
    for _ in range(2):
        (x * np.array([1.0, 2.0])).sum().backward()
        assert x.grad.dtype == np.float32
    np.testing.assert_array_equal(x.grad.data, [2.0, 4.0])


OPERATORS = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a / b,
    "@": lambda a, b: a @ b,
}


@pytest.mark.parametrize("op", OPERATORS.values(), ids=OPERATORS)
def test_an_array_on_either_side_gives_a_tensor_and_numpys_result(op):
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((3, 3)).astype(np.float32), rng.standard_normal((3, 3)).astype(np.float32)
    for result in (op(a, Tensor(b)), op(Tensor(a), b)):
        assert type(result) is Tensor
        np.testing.assert_array_equal(result.data, op(a, b))


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, bool, np.float32])
def test_subtraction_never_negates_what_has_no_sign(dtype):
    x, small = Tensor([5.0, 5.0]), np.array([1, 0], dtype)
    for other in (small, Tensor(small)):
        np.testing.assert_array_equal((x - other).data, [4.0, 5.0])
        np.testing.assert_array_equal((7.0 - Tensor(small)).data, [6.0, 7.0])
    np.testing.assert_array_equal((Tensor(np.array([3, 2], np.uint8)) - 1).data, [2, 1])


# Memory


@pytest.mark.parametrize(
    "view",
    [
        lambda x: x.reshape(4, 3), lambda x: x.reshape((2, -1)), lambda x: x.permute(1, 0), lambda x: x.transpose(0, 1),
        lambda x: x.T, lambda x: x.flatten(), lambda x: x[1], lambda x: x[..., ::2], lambda x: x[None, 1:],
        lambda x: x.detach(), lambda x: Tensor(x), lambda x: Tensor(x.data),
    ],
)  # fmt: skip
def test_views_share_memory_as_in_numpy(view):
    x = leaf(*range(12)).reshape(3, 4)
    assert np.shares_memory(view(x).data, x.data)


@pytest.mark.parametrize("start", [0, 1, 2, -1])
def test_flatten_joins_the_last_axes_also_of_nothing(start):
    for shape in ((2, 3, 4), (0, 3, 4), (2, 0, 4)):
        joined = Tensor(np.zeros(shape)).flatten(start)
        assert joined.shape == (*shape[:start], int(np.prod(shape[start:])))


def test_numpy_gives_the_array_itself_unless_it_is_part_of_a_graph():
    array = np.ones(2)
    assert Tensor(array).numpy() is array
    with pytest.raises(RuntimeError, match="detach"):
        leaf(1.0).numpy()


# What is refused

REFUSED = {
    "backward without a graph": (RuntimeError, "does not require", lambda: Tensor([1.0]).sum().backward()),
    "backward of no scalar": (RuntimeError, r"scalar, not shape \(2,\)", lambda: leaf(1.0, 2.0).backward()),
    "gradient of another shape": (ValueError, r"\(3,\).*\(2,\)", lambda: leaf(1.0, 2.0).backward(np.ones(3))),
    "gradient that broadcasts": (ValueError, r"\(\).*\(2,\)", lambda: leaf(1.0, 2.0).backward(np.ones(()))),
    "integers that require gradients": (TypeError, "int64", lambda: Tensor([1, 2], requires_grad=True)),
    "bools that require gradients": (TypeError, "bool", lambda: Tensor([True], requires_grad=True)),
    "strings": (TypeError, "real numbers", lambda: Tensor("text")),
    "objects": (TypeError, "object", lambda: Tensor([object()])),
    "None": (TypeError, "NoneType", lambda: Tensor(None)),
    "complex numbers": (TypeError, "complex", lambda: Tensor([1j])),
    "array of objects in arithmetic": (TypeError, "object", lambda: leaf(1.0) + np.array([None])),
    "exponent that is a tensor": (TypeError, "Tensor", lambda: leaf(1.0) ** leaf(1.0)),
    "shapes that do not broadcast": (ValueError, r"\(2,\).*\(3,\)", lambda: leaf(1, 2) + leaf(1, 2, 3)),
    "cat of nothing": (ValueError, "at least one", lambda: cat([])),
}


@pytest.mark.parametrize(("error", "message", "call"), REFUSED.values(), ids=REFUSED)
def test_errors_name_what_is_wrong(error, message, call):
    with pytest.raises(error, match=message):
        call()


def test_a_derivative_of_the_wrong_shape_is_an_error_that_names_its_function():
    class Wrong(Function):
        @staticmethod
        def forward(ctx, x):
            return x * 2

        @staticmethod
        def backward(ctx, grad_output):
            return (grad_output[:1],)

    with pytest.raises(RuntimeError, match=r"WrongBackward.*\(1,\).*\(2,\)"):
        Wrong.apply(leaf(1.0, 2.0)).sum().backward()


def test_repr_shows_values_and_origin():
    assert repr(Tensor([1.0, 2.0])) == "Tensor([1., 2.])"
    assert repr(leaf(1.0)) == "Tensor([1.], requires_grad=True)"
    assert repr(leaf(1.0) * 2) == "Tensor([2.], grad_fn=<MulBackward>)"
