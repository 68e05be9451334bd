"""What observers are told, and that nobody pays for them who has none."""

import importlib
import threading

import numpy as np
import pytest

from tinytorch import Tensor, nn, optim
from tinytorch.profiling.dispatch import Observer, record_function

methods = importlib.import_module("tests.19_profiling.watched").methods
rng = np.random.default_rng(0)


class Log(Observer):
    """Writes down every beginning and end."""

    def __init__(self, model=None):
        super().__init__(model)
        self.lines, self.depth = [], 0

    def enter(self, call):
        self.lines.append("  " * self.depth + f"{call.kind} {call.name} {self.path(call.module)}".rstrip())
        self.depth += 1

    def exit(self, call):
        self.depth -= 1
        assert call.failed or call.kind in ("range", "pass", "optimizer") or call.result is not None


def mlp() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 4, rng=rng), nn.ReLU(), nn.Linear(4, 2, rng=rng))


def test_a_training_step_is_told_in_order_nested_and_with_the_modules_paths():
    model = mlp()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    with Log(model) as log:
        loss = model(Tensor(np.ones((5, 3), np.float32))).sum()
        loss.backward()
        optimizer.step()
    assert log.lines == [
        "module Sequential",
        "  module Linear 0",
        "    forward Linear 0",
        "  module ReLU 1",
        "    forward ReLU 1",
        "  module Linear 2",
        "    forward Linear 2",
        "forward Sum",
        "pass backward",
        "  backward SumBackward",
        "  backward LinearBackward 2",
        "  backward ReLUBackward 1",
        "  backward LinearBackward 0",
        "optimizer SGD.step",
    ]
    assert log.depth == 0


def test_without_an_observer_the_framework_runs_its_own_code():
    before = methods()
    with Log():
        assert not set(before) & set(methods())
        with Log():
            pass
        assert not set(before) & set(methods())
    assert methods() == before


def test_a_module_outside_of_the_model_is_called_by_its_class():
    block = nn.TransformerBlock(8, 2, rng=rng)
    with Log(mlp()) as log:
        block.mlp(Tensor(np.ones((1, 8), np.float32)))
        block(Tensor(np.ones((1, 2, 8), np.float32)))
    assert log.lines[0] == "module Sequential Sequential"
    assert "module TransformerBlock TransformerBlock" in log.lines
    assert "  module LayerNorm TransformerBlock.norm1" in log.lines


def test_an_exception_is_passed_on_and_every_call_ends():
    model = mlp()
    with Log(model) as log:
        with pytest.raises(ValueError, match="Linear takes"):
            model(Tensor(np.ones((5, 7), np.float32)))
        assert log.depth == 0
        model(Tensor(np.ones((5, 3), np.float32)))
    assert log.depth == 0
    with pytest.raises(ValueError, match="out of the block"), Log(model):
        raise ValueError("out of the block")
    model(Tensor(np.ones((5, 3), np.float32)))
    assert not log.watching


def test_an_observer_that_refuses_a_call_ends_it_for_those_before_it():
    class Refuses(Observer):
        def enter(self, call):
            raise LookupError("no")

        def exit(self, call):
            raise AssertionError("heard of the end of a call that it refused")

    with Log() as log, Refuses(), pytest.raises(LookupError):
        Tensor([1.0]).exp()
    assert log.depth == 0


def test_an_observer_cannot_be_entered_twice_and_can_be_used_again():
    log = Log()
    with log:
        with pytest.raises(RuntimeError, match="at work already"):
            log.__enter__()
        Tensor([1.0]).exp()
    with log:
        Tensor([1.0]).log()
    assert log.lines == ["forward Exp", "forward Log"]


def test_an_observer_sees_its_own_thread_alone():
    with Log() as outer:
        inner = Log()

        def work():
            with inner:
                Tensor([1.0]).exp()
            with pytest.raises(RuntimeError, match="not entered in this thread"):
                outer.__exit__()

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        Tensor([1.0]).log()
    assert (outer.lines, inner.lines) == (["forward Log"], ["forward Exp"])


def test_an_observer_that_leaves_in_the_middle_of_a_call_hears_no_more():
    log = Log()

    class Leaves(nn.Module):
        def forward(self, x):
            log.__exit__()
            return x.exp()

    log.__enter__()
    Leaves()(Tensor([1.0]))
    assert log.lines == ["module Leaves Leaves"]
    assert log.depth == 1


def test_ranges_nest_decorate_and_end_with_an_exception():
    @record_function("load")
    def load(n):
        return load(n - 1) if n else 0

    load(1)  # nobody watches
    with Log() as log:
        with record_function("step"):
            load(1)
        with pytest.raises(KeyError), record_function("fails"):
            raise KeyError
    assert log.lines == ["range step", "  range load", "    range load", "range fails"]
    assert log.depth == 0


def test_ranges_that_do_not_nest_are_refused_and_the_next_are_not():
    outer, inner = record_function("outer"), record_function("inner")
    with Log() as log:
        outer.__enter__()
        inner.__enter__()
        with pytest.raises(RuntimeError, match="'outer' ends while 'inner'"):
            outer.__exit__(None)
        inner.__exit__(None)
        with record_function("next"):
            pass
    assert log.lines[-1].strip() == "range next"


def test_a_shared_module_has_its_first_path_as_its_parameters_do():
    layer = nn.Linear(3, 3, rng=rng)
    with Log(nn.Sequential(layer, nn.ReLU(), layer)) as log:
        layer(Tensor(np.ones((1, 3), np.float32)))
    assert log.lines == ["module Linear 0", "  forward Linear 0"]
