"""What is opened runs as its layers do one by one, for any number of samples, at the cost that limits are for."""

import importlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinytorch import Tensor, nn, no_grad
from tinytorch.benchmarks.tinymlperf.graph import Graph
from tinytorch.benchmarks.tinymlperf.inference import SAMPLE, follow
from tinytorch.benchmarks.tinymlperf.limits import Limits
from tinytorch.benchmarks.tinymlperf.operations import OPERATIONS
from tinytorch.benchmarks.tinymlperf.rejection import Code, Rejected
from tinytorch.benchmarks.tinymlperf.submission import Submission

graphs = importlib.import_module("tests.20_benchmarking.graphs")
random_graphs = importlib.import_module("tests.20_benchmarking.random_graphs")


@pytest.fixture(params=graphs.KINDS)
def good(request, tmp_path):
    """A submission, opened from a file."""
    return graphs.opened(tmp_path / "good", *graphs.KINDS[request.param]())


def test_the_good_graphs_that_the_hostile_ones_differ_from_open_and_run(good):
    assert all(np.isfinite(output).all() for output in graphs.run(good))


def test_a_graph_is_written_and_read_as_it_was(good):
    again = Graph.from_json(good.graph.to_json(), good.arrays)
    assert again == good.graph
    assert again.to_json() == good.graph.to_json()


def test_limits_are_for_one_sample(good, tmp_path):
    """What takes all that is allowed is taken, and refused before anything is run if one operation less is."""
    path = good.save(tmp_path / "again")
    Submission.open(path, Limits(flops=good.costs.flops))
    with pytest.raises(Rejected, match="operations") as refused:
        Submission.open(path, Limits(flops=good.costs.flops - 1))
    assert refused.value.code == Code.TOO_LARGE


def need_the_batch_to_stay(graph, arrays):
    for one, many in zip(follow(graph, arrays), follow(graph, arrays, sizes=SAMPLE | {"N": 3}), strict=True):
        assert (many.output.dtype, many.output.shape) == (one.output.dtype, (3, *one.output.shape[1:]))


def test_shapes_of_many_samples_are_those_of_one(good):
    need_the_batch_to_stay(good.graph, good.arrays)


# Drawn at random, so that shapes fit


def test_every_operation_stands_in_a_graph_that_is_tried_here():
    wholes = [make()[0] for make in graphs.KINDS.values()] + [random_graphs.drawn(seed)[0] for seed in range(100)]
    assert {node["op"] for whole in wholes for node in whole["nodes"]} == set(OPERATIONS)


@settings(max_examples=150)
@given(st.integers(0, 2**32 - 1))
def test_any_graph_whose_shapes_fit_is_run_as_its_layers_are_one_by_one(tmp_path_factory, seed):
    """However layers are put together into plans, the numbers are those of each node done alone."""
    submission = graphs.opened(tmp_path_factory.getbasetemp() / "drawn", *random_graphs.drawn(seed))
    need_the_batch_to_stay(submission.graph, submission.arrays)
    (found,) = graphs.run(submission)
    layers = nn.Sequential(*(step.layer() for step in follow(submission.graph, submission.arrays)))
    with no_grad():
        expected = layers(Tensor(graphs.images())).data
    largest = max(1.0, float(np.abs(expected).max()))
    np.testing.assert_allclose(found / largest, expected / largest, rtol=0, atol=2e-5)


def test_a_linear_layer_on_rows_of_images_may_stand_before_a_convolution(tmp_path):
    """In a chain with sparse layers; without them it is run already."""
    whole, arrays = graphs.zeros()
    whole["nodes"].insert(0, graphs.node("linear", "x l", "z"))
    whole["nodes"][1]["inputs"][0] = "z"
    arrays["l"] = graphs.numbers(28, 28)
    (found,) = graphs.run(graphs.opened(tmp_path / "rows", whole, arrays))
    assert found.shape == (2, 10)
