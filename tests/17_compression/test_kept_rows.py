"""Some vectors times a matrix without its zeros, as compiled code lays it out for a step of a GPT."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tinytorch.kernels.sparse import Product, Rows

pytest.importorskip("numba")

from tinytorch.acceleration.assembly import hottest_loop
from tinytorch.kernels.compiled import kept

ROOT = Path(__file__).parents[2]
picks = pytest.mark.skipif(not kept.CAN_PICK, reason="this processor has no instruction that picks from registers")


def pruned(outputs, inputs, sparsity, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(0, 1, (outputs, inputs)).astype(np.float32) * (rng.random((outputs, inputs)) >= sparsity)


def multiplied(x, weight, bias):
    packed, out = kept.pack(Rows.from_dense(weight)), np.full((len(x), len(weight)), np.nan, np.float32)
    kept.multiplier()(x.reshape(-1), len(x), x.shape[1], packed.ctypes.data, bias, len(weight), out.reshape(-1))
    return out


def need_products(x, weight):
    bias = np.arange(len(weight), dtype=np.float32)
    expected = x.astype(np.float64) @ weight.T.astype(np.float64) + bias
    np.testing.assert_allclose(multiplied(x, weight, bias), expected, rtol=1e-5, atol=1e-4)


@picks
@settings(max_examples=60)
@given(st.integers(1, 9), st.integers(1, 100), st.integers(1, 100), st.floats(0, 1), st.integers(0, 99))
@example(1, 384, 128, 0.7, 0)
@example(5, 128, 512, 0.9, 0)
@example(1, 33, 31, 0.0, 0)
@example(4, 7, 65, 1.0, 0)
def test_products_are_those_with_the_dense_matrix(rows, outputs, inputs, sparsity, seed):
    x = np.random.default_rng(seed).normal(0, 1, (rows, inputs)).astype(np.float32)
    need_products(x, pruned(outputs, inputs, sparsity, seed))


@picks
def test_rows_of_very_different_lengths_are_put_in_their_places_again():
    weight = np.tril(pruned(70, 70, 0.0))[np.random.default_rng(1).permutation(70)]
    need_products(np.ones((3, 70), np.float32), weight)


@picks
def test_a_vector_gives_the_same_bits_alone_and_among_others():
    weight, bias = pruned(70, 45, 0.6), np.ones(70, np.float32)
    x = np.random.default_rng(2).normal(0, 1, (7, 45)).astype(np.float32)
    alone = np.concatenate([multiplied(row[None], weight, bias) for row in x])
    np.testing.assert_array_equal(multiplied(x, weight, bias), alone)


@picks
@pytest.mark.parametrize("strange", [np.nan, np.inf])
def test_a_strange_number_reaches_those_outputs_alone_that_have_a_weight_for_it(strange):
    weight, x = pruned(70, 45, 0.6), np.ones((5, 45), np.float32)
    x[:, 3] = strange
    out = multiplied(x, weight, np.zeros(70, np.float32))
    np.testing.assert_array_equal(np.isfinite(out), np.broadcast_to(weight[:, 3] == 0, out.shape))


@picks
def test_a_strange_weight_stays_in_its_row():
    weight = pruned(70, 45, 0.6)
    weight[8, 2], weight[9, 44] = np.nan, np.inf
    out = multiplied(np.ones((1, 45), np.float32), weight, np.zeros(70, np.float32))[0]
    assert np.flatnonzero(~np.isfinite(out)).tolist() == [8, 9]


@picks
def test_what_is_read_shrinks_with_what_is_kept():
    """A kept weight takes five bytes; what is filled up less than doubles them."""
    for sparsity in (0.5, 0.7, 0.9):
        weight = pruned(384, 128, sparsity)
        assert kept.pack(Rows.from_dense(weight)).nbytes < 10 * np.count_nonzero(weight) + 4096
    assert kept.pack(Rows.from_dense(pruned(384, 128, 0.9))).nbytes < weight.nbytes / 3


def test_a_processor_that_cannot_pick_gets_the_matrix_with_its_zeros(monkeypatch):
    monkeypatch.setattr(kept, "CAN_PICK", False)
    weight = pruned(5, 6, 0.5)
    product = Product(Rows.from_dense(weight))
    assert product.packed is None
    np.testing.assert_array_equal(product.dense, weight)


OTHER = """
import sys
from pathlib import Path
from tests.regression.lanes import compile_for
compile_for(int(sys.argv[1]), Path(sys.argv[2]))
import importlib
tests = importlib.import_module("tests.17_compression.test_kept_rows")
print("CAN_PICK", tests.kept.CAN_PICK)
if tests.kept.CAN_PICK:
    for rows, outputs, inputs, sparsity in ((1, 70, 45, 0.6), (7, 33, 65, 0.9)):
        tests.need_products(tests.np.ones((rows, inputs), tests.np.float32), tests.pruned(outputs, inputs, sparsity))
    tests.need_a_loop_that_picks()
"""


@picks
@pytest.mark.parametrize(("lanes", "can"), [(8, True), (4, False)])
def test_shorter_registers_are_picked_from_too_if_they_have_an_instruction_for_it(lanes, can, tmp_path):
    command = [sys.executable, "-c", OTHER, str(lanes), str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"CAN_PICK {can}\n"


def need_a_loop_that_picks():
    """Multiply vectors in one instruction, with what one or two others pick, without a look into memory for each."""
    numbers = np.ones(64, np.float32)
    loop = hottest_loop(kept._sums(1), numbers, 0, 1, 0, 0, 0, 1, numbers)
    code = "\n".join(loop.lines)
    assert loop.lanes == kept.LANES
    assert loop.fused == loop.products
    assert len(re.findall(r"vperm\w*ps", code)) == loop.products
    assert "gather" not in code
    assert loop.spills == 0


@picks
def test_numbers_are_picked_from_registers():
    need_a_loop_that_picks()
