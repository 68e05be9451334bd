"""What the chapter has its reader derive by hand is what the package does."""

import itertools
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import solutions
from tinytorch import nn
from tinytorch.compression import GradualSchedule, MagnitudePruner, factorize, prune_filters, semi_structured_bytes
from tinytorch.kernels.softmax import softmax
from tinytorch.kernels.sparse import Linear, Network, Rows
from tinytorch.zoo.sparse_files import stored_bytes

solved = partial(solutions.solved, "17_compression")


@given(st.integers(0, 1000), st.sampled_from([0.0, 0.25, 0.5, 0.8, 0.95]))
def test_as_many_weights_are_kept_of_each_layer_as_the_reader_says(seed, share):
    rng = np.random.default_rng(seed)
    model = nn.Sequential(nn.Linear(8, 5, rng=rng), nn.Linear(5, 3, rng=rng))
    layers = tuple(tuple(layer.weight.data.ravel().tolist()) for layer in model)
    MagnitudePruner(share).prepare(model).finalize()
    assert solved("kept")(layers, share) == [np.count_nonzero(layer.weight.data) for layer in model]


@given(st.integers(0, 50), st.integers(0, 20), st.integers(1, 30), st.floats(0, 0.99))
def test_the_reader_s_schedule_is_the_package_s(step, begin, length, final):
    schedule = GradualSchedule(begin, begin + length)
    assert solved("sparsity_at")(step, begin, begin + length, final) == pytest.approx(schedule.at(step, final))


@given(st.integers(1, 64), st.integers(1, 64), st.floats(0, 1))
def test_the_form_that_the_reader_takes_is_the_smallest(rows, columns, share):
    rng = np.random.default_rng(rows * 100 + columns)
    dense = np.where(rng.random((rows, columns)) < share, 1, 0).astype(np.float32)
    sizes = {"dense": dense.nbytes, "csr": Rows.from_dense(dense).nbytes}
    sizes["mask"] = -(-dense.size // 8) + 4 * np.count_nonzero(dense)
    assert sizes[solved("smallest_form")(rows, columns, int(dense.sum()))] == min(sizes.values())


def test_a_file_takes_the_form_that_the_reader_takes():
    for zeros in (0.0, 0.5, 0.9):
        dense = np.ones(8000, np.float32)
        dense[: round(zeros * 8000)] = 0
        form = solved("smallest_form")(80, 100, int(dense.sum()))
        assert stored_bytes(dense) == (dense.nbytes if form == "dense" else 1000 + 4 * int(dense.sum()))


@given(st.integers(0, 1000))
def test_the_reader_s_product_is_the_package_s(seed):
    rng = np.random.default_rng(seed)
    dense = (rng.integers(-3, 4, (5, 7)) * (rng.random((5, 7)) < 0.4)).astype(np.float32)
    rows, x = Rows.from_dense(dense), rng.integers(-3, 4, 7).astype(np.float32)
    expected = Network([Linear(rows)], (7,))(x[None])[0]
    assert solved("product")(rows.values, rows.indices, rows.indptr, x) == expected.tolist()


@pytest.mark.parametrize(("channels", "removed"), [((1, 16, 32), 0.5), ((3, 8, 8, 4), 0.75), ((2, 10, 10, 3), 0.0)])
def test_as_many_parameters_are_left_as_the_reader_counts(channels, removed):
    rng = np.random.default_rng(0)
    layers = [nn.Conv2d(i, o, 3, rng=rng) for i, o in itertools.pairwise(channels)]
    smaller = prune_filters(nn.Sequential(*layers), removed)
    assert solved("parameters")(channels, removed) == smaller.num_parameters()


@pytest.mark.parametrize(("inputs", "outputs"), [(12, 5), (10, 10), (7, 2)])
def test_a_layer_is_split_up_to_the_rank_that_the_reader_gives(inputs, outputs):
    rng, limit = np.random.default_rng(0), solved("largest_rank")(inputs, outputs)
    for rank in range(1, min(inputs, outputs) + 1):
        layer = nn.Linear(inputs, outputs, rng=rng)
        weight = rng.standard_normal((outputs, rank)) @ rng.standard_normal((rank, inputs))
        layer.load_state_dict({"weight": weight.astype(np.float32), "bias": layer.bias.data})
        split = len(list(factorize(nn.Sequential(layer), energy=1 - 1e-9))) == 2
        assert split == (rank <= limit)


@given(st.lists(st.floats(-20, 20), min_size=1, max_size=5), st.floats(0.5, 20))
def test_the_reader_s_soft_targets_are_the_package_s(outputs, temperature):
    expected = softmax(np.array(outputs) / temperature)
    np.testing.assert_allclose(solved("soft_targets")(tuple(outputs), temperature), expected, rtol=0, atol=0.00501)


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=8, unique=True))
def test_on_the_front_is_who_is_not_beaten(models):
    chosen = solved("front")(tuple(models))
    costs = [models[number][0] for number in chosen]
    assert costs == sorted(costs)

    def beaten(a):
        return any(b != a and b[0] <= a[0] and b[1] >= a[1] for b in models)

    assert {models[number] for number in chosen} == {model for model in models if not beaten(model)}


def test_two_bits_for_each_number_kept_are_as_many_as_one_for_each_place():
    """The chapter says so of 2:4."""
    assert semi_structured_bytes((128, 576), itemsize=4) == 128 * 576 * (4 / 2 + 1 / 8)
