"""The counter: what it sees, where it puts it, and that it does not pass over what it cannot count."""

import threading

import numpy as np
import pytest

from tinytorch import Function, Tensor, backend, nn, no_grad, optim
from tinytorch.nn.cost import forward_flops
from tinytorch.nn.functional import cross_entropy
from tinytorch.profiling.flops.count import Count, counts
from tinytorch.profiling.flops.counter import OUTSIDE, FLOPCounter, UncountedOperationError
from tinytorch.zoo import reference_cnn

rng = np.random.default_rng(0)


def mlp() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 4, rng=rng), nn.ReLU(), nn.Linear(4, 2, rng=rng))


def batch(rows: int = 5) -> Tensor:
    return Tensor(np.ones((rows, 3), np.float32))


class Clamp(Function):
    """An operation of the reader's own: no formula."""

    @staticmethod
    def forward(ctx, x, high):
        return np.minimum(x, high)

    @staticmethod
    def backward(ctx, grad_output):
        return grad_output, None


class Clamped(nn.Module):
    def forward(self, x):
        return Clamp.apply(x, 1.0)


def clamped_mlp() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 4, rng=rng), Clamped(), nn.Linear(4, 2, rng=rng))


# Sums


def test_an_mlp_counted_by_hand():
    """5 rows through 3 -> 4 -> 2, float32."""
    model = mlp()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    with FLOPCounter(model) as counter:
        model(batch()).sum().backward()
        optimizer.step()
    parameters = 3 * 4 + 4 + 4 * 2 + 2
    first, second = 5 * 3 * 4, 5 * 4 * 2  # MACs
    assert counter.forward.macs == first + second
    assert counter.forward.flops == 2 * first + 5 * 4 + 5 * 4 + 2 * second + 5 * 2 + 5 * 2  # biases, ReLU, the sum
    assert counter.backward.macs == first + 2 * second  # nobody needs the gradient of the first layer's input
    assert counter.backward.flops == 2 * first + 5 * 4 + 2 * 5 * 4 + 4 * second + 5 * 2  # biases, ReLU, biases
    assert counter.optimizer == Count(0, 6 * parameters, 3 * 4 * parameters)
    layer1 = 5 * 3 + 4 * 3 + 4 + 5 * 4  # numbers that move: input, weight, bias, output
    layer2 = 5 * 4 + 2 * 4 + 2 + 5 * 2
    assert counter.forward.bytes == 4 * (layer1 + (5 * 4 + 5 * 4) + layer2 + (5 * 2 + 1))
    gradients1 = (5 * 4 + 5 * 3) + 4 * 3 + 4
    gradients2 = (5 * 2 + 2 * 4 + 5 * 4) + 5 * 4 + 2 * 4 + 2
    assert counter.backward.bytes == 4 * (gradients1 + 3 * 5 * 4 + gradients2)
    assert counter.total == counter.forward + counter.backward + counter.optimizer
    assert (counter.coverage, counter.uncounted) == (1.0, {})


def test_backward_is_what_is_asked_for_not_twice_the_forward():
    x = batch()
    layer = nn.Linear(3, 2, bias=False, rng=rng)
    for inputs, weight, macs in ((False, True, 30), (True, False, 30), (True, True, 60)):
        x.requires_grad, layer.weight.requires_grad = inputs, weight
        with FLOPCounter() as counter:
            layer(x).sum().backward()
        assert (counter.forward.macs, counter.backward.macs) == (30, macs)


def test_by_operation_and_by_module_share_out_the_same_work():
    model = nn.GPT(11, 8, 2, 2, 6, rng=rng)
    optimizer = optim.AdamW(model.parameters())
    ids = rng.integers(0, 11, (2, 5))
    with FLOPCounter(model) as counter:
        cross_entropy(model(ids), ids).backward()
        optimizer.step()
    by_module, by_operation = counter.by_module(), counter.by_operation()
    assert sum(by_operation.values(), Count()) == counter.total
    assert by_module[""] + by_module[OUTSIDE] == counter.total
    children = [f"blocks.{i}" for i in range(2)] + ["token_embedding", "position_embedding", "norm", "head"]
    tokens, positions = 2 * 5 * 8, 5 * 8  # numbers; the model's own are their sum, and the gradient of the positions
    own = Count(flops=tokens + tokens, bytes=4 * ((tokens + positions + tokens) + (tokens + positions)))
    assert sum((by_module[path] for path in children), own) == by_module[""]
    assert [path for path in by_module if path != OUTSIDE] == [path for path, _ in model.named_modules()]
    assert by_module["blocks.0"] == by_module["blocks.1"]
    assert by_operation["AdamW.step"] == counter.optimizer
    assert by_operation["CrossEntropy"] + by_operation["CrossEntropyBackward"] + counter.optimizer == by_module[OUTSIDE]


@pytest.mark.parametrize(("length", "past"), [(1, 0), (5, 0), (1, 4), (3, 2)])
def test_the_products_of_gpt_are_those_that_its_cost_model_counts(length, past):
    model = nn.GPT(11, 12, 2, 3, 16, rng=rng)
    caches = model.empty_past_key_values(2) if past else None
    with no_grad():
        if past:
            model(np.zeros((2, past), np.int64), caches)
        with FLOPCounter(model) as counter:
            model(np.zeros((2, length), np.int64), caches)
    cost = forward_flops(model, length, past, batch_size=2)
    assert 2 * counter.total.macs == cost.total
    if length > 1 or not past:  # a single position behind others takes one operation for a block
        attention = sum(n.macs for name, n in counter.by_operation().items() if "Attention" in name)
        assert 2 * attention == cost.attention
    assert counter.coverage == 1.0


def test_positions_that_the_mask_hides_are_counted_and_named():
    attention = nn.MultiHeadAttention(6, 2, rng=rng)
    with FLOPCounter(attention) as counter:
        attention(Tensor(np.ones((2, 4, 6), np.float32)))
    work = counter.by_operation()["SelfAttention"]
    assert work.masked * 16 == work.flops * 6  # of 4 x 4 scores 3 + 2 + 1 are hidden
    assert "are spent on positions that a causal mask hides" in str(counter)


def test_operations_without_gradients_count_and_the_cnns_count_depends_on_the_mode():
    model, images = reference_cnn(rng), Tensor(np.ones((2, 1, 28, 28), np.float32))
    with FLOPCounter(model) as training:
        model(images)
    model.eval()
    with no_grad(), FLOPCounter(model) as evaluation:
        model(images)
    assert training.total.macs == evaluation.total.macs > 0
    assert training.total.flops > evaluation.total.flops  # batch norm has no statistics to compute
    assert evaluation.backward == Count()


def test_the_work_is_the_same_whichever_kernels_do_it():
    """Also of attention's derivative, for which they keep different arrays."""
    found = {}
    for name in ("naive", "numpy"):
        model, ids = nn.GPT(11, 8, 1, 2, 6, rng=rng), np.zeros((1, 3), np.int64)
        with backend(name), FLOPCounter(model) as counter:
            cross_entropy(model(ids), ids).backward()
        found[name] = counter.by_operation()
    assert found["naive"] == found["numpy"]


# What cannot be counted


def test_an_operation_without_a_formula_shows_in_the_coverage():
    model = clamped_mlp()
    with FLOPCounter(model) as counter:
        model(batch()).sum().backward()
        model(batch())
    assert counter.uncounted == {"Clamp": 2, "ClampBackward": 1}
    assert counter.coverage == 8 / 11
    table = str(counter)
    assert (
        "Not counted, for want of a formula, so that the sums are too small: Clamp (2 calls), ClampBackward (1 call)."
        in table
    )
    rows = {row[0]: row[-1] for row in counter.table().rows}
    assert rows == {"the model": (6, 9), "0": (3, 3), "1": (0, 3), "2": (3, 3), OUTSIDE: (2, 2), "all": (8, 11)}
    assert "6 of 9" in table


def test_strict_refuses_it_before_it_computes_and_says_what_to_do():
    model = clamped_mlp()
    ran = []

    class Noted(Clamp):
        @staticmethod
        def forward(ctx, x, high):
            ran.append(high)
            return Clamp.forward(ctx, x, high)

    with FLOPCounter(model, strict=True) as counter:
        with pytest.raises(
            UncountedOperationError, match=r"Clamp \(1\) .*@tinytorch.profiling.flops.count.counts\(Clamp, \"f"
        ):
            model(batch())
        with pytest.raises(UncountedOperationError, match=r"Noted \(outside of modules\)"):
            Noted.apply(batch(), 1.0)
        mlp()(batch()).sum().backward()
    assert ran == []
    assert counter.coverage == 1.0
    assert counter.by_operation().keys() == {"Linear", "ReLU", "Sum", "SumBackward", "ReLUBackward", "LinearBackward"}


def test_strict_refuses_derivatives_and_optimizers_too():
    class Plain(optim.Optimizer):
        def _update(self, p, grad, state):
            p -= self.lr * grad

    p = Tensor([1.0], requires_grad=True)
    y = Clamp.apply(p, 2.0)
    optimizer = Plain([p], lr=0.1)
    with FLOPCounter(strict=True):
        with pytest.raises(UncountedOperationError, match=r"ClampBackward .*counts\(Clamp, \"backward\"\)"):
            y.backward()
        with pytest.raises(UncountedOperationError, match=r"Plain.step .*counts\(Plain, \"optimizer\"\)"):
            optimizer.step()
    assert p.data == [1.0]


def test_a_formula_of_ones_own_counts_also_what_ran_before_it():
    class Halve(Function):
        @staticmethod
        def forward(ctx, x):
            return x / 2

    with FLOPCounter() as counter:
        Halve.apply(batch())
    assert (counter.total, counter.uncounted) == (Count(), {"Halve": 1})

    @counts(Halve, "forward")
    def halve(operation):
        return Count(flops=operation.output.size)

    assert (counter.total, counter.coverage) == (Count(flops=15), 1.0)
    with FLOPCounter(strict=True):
        Halve.apply(batch())


# The context


def test_it_can_be_read_inside_and_adds_up_when_it_is_entered_again():
    counter, model = FLOPCounter(), mlp()
    with counter:
        model(batch())
        first = counter.total
        model(batch(10))
        both = counter.total
        assert both.macs == 3 * first.macs
    with counter:
        model(batch())
    assert counter.total == both + first
    counter.reset()
    assert (counter.total, counter.by_module(), counter.coverage) == (Count(), {}, 1.0)
    with counter:
        model(batch())
    assert counter.total == first


def test_it_can_be_reset_while_a_module_runs():
    class Resets(nn.Module):
        def forward(self, x):
            y = x.exp()
            counter.reset()
            return y + 1.0

    with FLOPCounter() as counter:
        Resets()(batch())
    assert counter.by_operation().keys() == {"Add"}
    assert list(counter.by_module()) == ["Resets"]


def test_a_call_that_fails_is_not_counted_and_leaves_it_usable():
    model = mlp()
    with FLOPCounter(model) as counter:
        with pytest.raises(ValueError, match="Linear takes"):
            model(Tensor(np.ones((5, 7), np.float32)))
        with pytest.raises(ValueError, match="a matrix product takes"):
            Tensor(np.ones((2, 3))) @ Tensor(np.ones((2, 3)))
        assert counter.by_operation() == {}
        model(batch())
    with pytest.raises(KeyError, match="out of the block"), counter:
        raise KeyError("out of the block")
    assert counter.total == counter.forward
    assert counter.total.macs == 5 * 3 * 4 + 5 * 4 * 2
    assert {row[0]: row[2] for row in counter.table().rows}["the model"] == 1


def test_counters_within_one_another_and_in_other_threads_count_their_own():
    with FLOPCounter() as outer:
        batch().exp()
        with FLOPCounter() as inner:
            batch().exp()
        thread = threading.Thread(target=lambda: batch().exp())
        thread.start()
        thread.join()
    assert (outer.total.flops, inner.total.flops) == (30, 15)
