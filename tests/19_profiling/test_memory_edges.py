"""What a profile of memory does at its edges: empty blocks, exceptions, threads, profilers within one another."""

import threading
import weakref

import numpy as np
import pytest

from tinytorch import Tensor, nn
from tinytorch.autograd import Function, Node
from tinytorch.nn.functional import cross_entropy
from tinytorch.profiling.dispatch import record_function
from tinytorch.profiling.memory.profiler import MemoryProfiler
from tinytorch.profiling.memory.traced import tracing

FLOAT = 4


pytestmark = pytest.mark.usefixtures("on_numpy")


PARAMETERS = FLOAT * (20 * 30 + 30 + 30 * 10 + 10)


def test_an_empty_block_shows_what_was_there(model):
    with MemoryProfiler(model) as memory:
        pass
    assert memory.timeline == []
    assert memory.peak["total"] == memory.peak["parameters"] == PARAMETERS
    assert len(memory.at_peak().rows) == 4
    assert memory.layers().rows == []
    assert memory.traced_peak < 1024
    with MemoryProfiler() as memory:
        pass
    assert memory.peak["total"] == 0
    assert [row[0] for row in memory.table().rows] == ["traced, above the start", "tensors", "process, highest so far"]


def test_a_profiler_that_was_not_entered_shows_nothing():
    memory = MemoryProfiler()
    assert (memory.traced_peak, memory.peak["total"], memory.timeline) == (0, 0, [])
    assert "–" in str(memory)


def fail(*arguments):
    raise LookupError("own")


def test_an_exception_is_passed_on_and_leaves_it_usable(model, batch):
    methods = nn.Module.__call__, Function.__dict__["apply"].__func__, Node.backward
    memory = MemoryProfiler(model)
    with memory:
        with pytest.raises(ValueError, match="Linear takes"):
            model(Tensor(np.zeros((2, 3), np.float32)))
        with pytest.raises(ValueError, match="matrix product"):
            batch[0] @ batch[0]
        model(batch[0])
    assert [moment.name for moment in memory.timeline] == ["MatMul", "Linear", "ReLU", "Linear"]
    assert {row[1]: row[2] for row in memory.layers().rows} == {"Sequential": 1, "Linear": 1, "ReLU": 1}
    with pytest.raises(LookupError, match="own"), memory:
        fail(model(batch[0]))
    assert methods == (nn.Module.__call__, Function.__dict__["apply"].__func__, Node.backward)
    with memory:
        model(batch[0])
    assert [moment.index for moment in memory.timeline] == [0, 1, 2]
    assert memory.peak["activations"] == FLOAT * 8 * 70


def test_entering_it_while_it_is_at_work_is_an_error_and_does_not_disturb_it(model, batch):
    with MemoryProfiler(model) as memory:
        y = model(batch[0])
        with pytest.raises(RuntimeError, match="at work already"), memory:
            pass
        y.sum()
    assert [moment.name for moment in memory.timeline] == ["Linear", "ReLU", "Linear", "Sum"]


def test_it_cannot_be_left_in_another_thread(batch):
    errors = []

    def leave():
        try:
            memory.__exit__(None, None, None)
        except RuntimeError as error:
            errors.append(str(error))

    with MemoryProfiler() as memory:
        thread = threading.Thread(target=leave)
        thread.start()
        thread.join()
        batch[0].exp()
    assert "not entered in this thread" in errors[0]
    assert memory.peak["activations"] == FLOAT * 8 * 20


def test_tensors_of_other_threads_are_not_counted(model, batch):
    held = []
    with MemoryProfiler(model) as memory:
        thread = threading.Thread(target=lambda: held.append(model(batch[0])))
        thread.start()
        thread.join()
    assert memory.timeline == []
    assert memory.peak["total"] == PARAMETERS
    assert memory.traced_kept > FLOAT * 8 * 70


def test_a_profiler_that_is_left_within_a_call_forgets_the_call(batch):
    memory = MemoryProfiler()

    class Leaves(nn.Module):
        def forward(self, x, enter_again):
            memory.__exit__(None, None, None)
            if enter_again:
                memory.__enter__()
            return x.exp()

    memory.__enter__()
    x = Tensor(batch[0].data.copy())
    gone = weakref.ref(x.data)
    Leaves()(x, False)
    del x
    assert gone() is None
    assert memory.timeline == []
    assert not tracing._windows
    memory.__enter__()
    Leaves()(batch[0], True)
    batch[0].log()
    memory.__exit__(None, None, None)
    assert [moment.name for moment in memory.timeline] == ["Exp", "Log"]
    assert not tracing._windows


def test_nested_profilers_both_count(model, batch):
    x, y = batch
    with MemoryProfiler(model) as outer:
        cross_entropy(model(x), y).backward()
        with MemoryProfiler(model) as inner:
            model(x)
        assert inner.peak["gradients"] == PARAMETERS
    assert [moment.name for moment in outer.timeline][-3:] == [moment.name for moment in inner.timeline]
    assert outer.peak["gradients"] > inner.peak["gradients"]


def test_ranges_and_modules_are_no_moments_of_the_timeline(batch):
    with MemoryProfiler() as memory, record_function("load"):
        batch[0].exp()
    assert [(m.kind, m.name) for m in memory.timeline] == [("forward", "Exp")]
