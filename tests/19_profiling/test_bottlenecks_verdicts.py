"""What is said of kernels of known kind, and what is advised."""

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinytorch
from tinytorch import Tensor, nn, no_grad
from tinytorch.profiling.bottlenecks import advice
from tinytorch.profiling.bottlenecks.advice import advise, repeats_positions
from tinytorch.profiling.bottlenecks.find import find_bottlenecks
from tinytorch.profiling.bottlenecks.verdict import INTERPRETED, RIDGE_BAND, Work, judge, judge_glue
from tinytorch.profiling.profiler.context import ProfilerContext

times = st.floats(1e-9, 1e3)


def work(seconds: float, memory: float = 0.0, compute: float = 0.0, price: float = 0.0, products: bool = True) -> Work:
    return Work(seconds, price, memory, compute, "L2", products)


@pytest.mark.parametrize(
    ("kernel", "verdict", "reason"),
    [
        (work(3.0, memory=0.1, compute=2.7), "compute-bound", "90 % of the roof of arithmetic"),
        (work(12.0, memory=10.0, compute=0.5, products=False), "memory-bound", "83 % of the roof of L2"),
        (work(10.0, memory=1e-3, compute=1e-3, price=9.0), "overhead-bound", "90 % of the time is the price"),
        (work(1e4, memory=0.1, compute=1.0), "overhead-bound", "10,000 times what its bytes and operations need"),
        (work(1.0), "overhead-bound", "on paper a view"),
        (work(40.0, memory=1.0, compute=1.0, products=False), "memory-bound", "arrays between its steps"),
        (work(40.0, memory=0.1, compute=1.0), "compute-bound", "2.5 % of the roof of arithmetic: arrays between"),
        (work(3.0, memory=1.0, compute=1.4), "ambiguous", "which meet here"),
        (work(3.0, memory=1.4, compute=1.0), "ambiguous", "which meet here"),
        (work(10.0, memory=4.0, price=5.0), "ambiguous", "50 % of the time is the price of its calls"),
        (work(1.0, memory=2.0), "ambiguous", "above the roof: count, time or level wrong. It is 2 times as fast"),
        (work(1.0, compute=1.05), "compute-bound", "105 % of the roof"),
    ],
    ids=[
        "product at its roof", "large addition", "tiny calls", "naive loops", "view", "GELU in NumPy", "slow product",
        "above the ridge", "below the ridge", "half overhead", "above the roof", "within the tolerance",
    ],
)  # fmt: skip
def test_kernels_of_known_kind_are_told_apart(kernel, verdict, reason):
    said, why = judge(kernel)
    assert said == verdict
    assert reason in why


@given(seconds=times, price=times, memory=times, compute=times, products=st.booleans())
def test_a_verdict_does_not_depend_on_how_often_a_kernel_was_called(seconds, price, memory, compute, products):
    once = Work(seconds, price, memory, compute, "L1", products)
    often = Work(2.0**20 * seconds, 2.0**20 * price, 2.0**20 * memory, 2.0**20 * compute, "L1", products)
    assert judge(once) == judge(often)


@given(share=st.floats(0.11, 1.0), balance=st.floats(1e-3, 1e3))
def test_with_free_calls_and_near_the_roof_the_ridge_decides(share, balance):
    memory, compute = 1.0, balance
    verdict, _ = judge(Work(max(memory, compute) / share, 0.0, memory, compute, "L1", True))
    expected = "compute-bound" if balance > RIDGE_BAND else "memory-bound" if balance < 1 / RIDGE_BAND else "ambiguous"
    assert verdict == expected


def test_the_price_of_calls_is_no_more_than_their_work_leaves():
    """One thread does one after the other. 0.7 + 0.6 > 1: the call on little data had work of its own."""
    kernel = work(1.0, compute=0.6, price=0.7)
    assert kernel.price_share == pytest.approx(0.4)
    assert judge(kernel)[0] == "compute-bound"


@given(compute=times, faster=st.floats(1.06, 1e6))
def test_nothing_above_the_roof_gets_a_certain_verdict(compute, faster):
    verdict, reason = judge(work(compute / faster, compute=compute))
    assert verdict == "ambiguous"
    assert reason.startswith("above the roof: count, time or level wrong")


def test_glue_is_python_up_to_ten_prices_of_a_call():
    assert judge_glue(9.9e-5, 10, 1e-6)[0] == "overhead-bound"
    assert judge_glue(1.1e-4, 10, 1e-6)[0] == "not counted"


# What to try


def texts(kernel: Work, kind: str = "forward", repeats: bool = False) -> tuple[advice.Advice, ...]:
    return advise(kernel, judge(kernel)[0], kind, repeats)


def test_at_the_roof_only_fewer_operations_or_bytes_are_advised():
    less = {advice.FEWER_OPERATIONS, advice.FEWER_BYTES, advice.NEIGHBOURS, advice.NARROW}
    for memory, compute in ((1.0, 0.1), (0.1, 1.0), (1.0, 1.0)):
        assert set(texts(work(1.05, memory, compute))) <= less
        assert not set(texts(work(3.0, memory, compute))[:1]) & less


def test_calls_are_made_larger_and_loops_compiled():
    assert texts(work(1.0, memory=1e-4, price=0.9)) == (advice.LARGER_CALLS,)
    assert texts(work(1.0, memory=1e-4, price=0.9), "backward") == (advice.LARGER_BATCH,)  # no Plan has derivatives
    assert texts(work(INTERPRETED + 1.0, memory=1.0, price=1.0)) == (advice.COMPILED,)
    assert texts(work(1.0, memory=0.1, price=0.5))[0] == advice.LARGER_CALLS


def test_far_below_the_roof_the_kernel_is_to_blame_not_the_size_of_its_numbers():
    assert texts(work(20.0, memory=1.0)) == (advice.FUSION, advice.REUSE)
    assert texts(work(2.0, memory=1.0)) == (advice.FUSION, advice.FEWER_BYTES)
    assert texts(work(20.0, compute=1.0)) == (advice.BETTER_KERNEL, advice.FUSION)
    assert texts(work(2.0, compute=1.0)) == (advice.BETTER_KERNEL, advice.FEWER_OPERATIONS)


def test_a_cache_is_advised_where_positions_are_computed_again():
    assert texts(work(1.5, compute=1.0), repeats=True)[0] == advice.CACHE
    assert advice.CACHE not in texts(work(1.5, compute=1.0), "backward", repeats=True)
    assert advice.CACHE not in texts(work(1.5, compute=1.0))


@pytest.mark.parametrize("use_cache", [False, True])
def test_generation_without_a_cache_is_recognized(use_cache):
    model = nn.GPT(8, 8, 1, 2, 16, rng=np.random.default_rng(0))
    with ProfilerContext(model) as prof:
        model.generate([1, 2], 5, use_cache=use_cache, rng=np.random.default_rng(0))
    assert repeats_positions(event.operation for event in prof.events if event.operation) is not use_cache


def test_every_advice_links_to_a_chapter_and_those_that_are_written_exist():
    root = Path(__file__).parents[2]
    every = [each for each in vars(advice).values() if isinstance(each, advice.Advice)]
    assert len(every) == 12
    for each in every:
        folder, name = re.fullmatch(r"chapters/\d\d_((\w+))/\2", each.link).groups()
        assert folder == name
        assert (root / f"{each.link}.md").exists() or not (root / each.link).parent.exists()


# On this machine: real operations on the measured roofline. What speed could change has made-up durations.


@pytest.fixture(scope="module")
def machine():
    pytest.importorskip("numba")
    from tinytorch.profiling.bottlenecks.find import _measured_roofline

    return _measured_roofline()


def recorded(function) -> ProfilerContext:
    function()  # compiles
    with ProfilerContext() as prof, no_grad():
        function()
    return prof


@pytest.mark.parametrize(
    ("shape", "operation", "verdict"),
    [
        ((768, 768), lambda x: x @ x, "compute-bound"),
        ((1 << 24,), lambda x: x + x, "memory-bound"),
    ],
)
def test_large_kernels_lie_where_they_must_on_this_machine(machine, shape, operation, verdict):
    """At half of the roof, whatever they took just now: which roof it is does not depend on the pace."""
    x = Tensor(np.ones(shape, np.float32))
    (event,) = recorded(lambda: operation(x)).events
    (row,) = find_bottlenecks([event._replace(duration=10**9)], machine)
    (row,) = find_bottlenecks([event._replace(duration=round(2e9 * row.bound))], machine)
    assert row.verdict == verdict
    assert row.efficiency == pytest.approx(0.5, rel=1e-3)


def test_a_chain_of_tiny_operations_waits_for_its_calls_on_this_machine(machine):
    x = Tensor(np.ones(1, np.float32))

    def chain():
        y = x
        for _ in range(50):
            y = y + x

    (row,) = find_bottlenecks(recorded(chain), machine)
    assert (row.verdict, row.calls) == ("overhead-bound", 50)


def test_loops_of_python_are_called_the_interpreters_time_on_this_machine(machine):
    x = Tensor(np.ones((24, 24), np.float32))
    with tinytorch.backend("naive"):
        (row,) = find_bottlenecks(recorded(lambda: x @ x), machine)
    assert row.verdict == "overhead-bound"
    assert "interpreter" in row.reason
    assert row.advice == (advice.COMPILED,)
