"""What is opened runs as its layers do one by one; what is refused is refused soon, with its code, in little memory."""

import copy
import importlib
import json
import random
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinytorch import Tensor, nn, no_grad
from tinytorch.benchmarks.tinymlperf.inference import follow
from tinytorch.benchmarks.tinymlperf.rejection import Rejected
from tinytorch.benchmarks.tinymlperf.submission import Submission

graphs = importlib.import_module("tests.20_benchmarking.graphs")
random_graphs = importlib.import_module("tests.20_benchmarking.random_graphs")
hostile = importlib.import_module("tests.20_benchmarking.hostile_graphs")

# Opens files, in a process of its own, and tells for each its code and the processor's seconds.
OPEN_ALL = """
import json, sys, time
from tinytorch.benchmarks.tinymlperf.rejection import Rejected
from tinytorch.benchmarks.tinymlperf.submission import Submission
from tinytorch.profiling.memory.process import high_water

if sys.platform == "linux":  # elsewhere a request for too much fails by itself
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
paths = json.loads(sys.stdin.read())
Submission.open(paths.pop(0))  # what is imported only when it is needed
before, found = high_water().nbytes or 0, {}
for path in paths:
    start = time.process_time()
    try:
        Submission.open(path)
        code = "opened"
    except Rejected as refused:
        code = refused.code
    except MemoryError:
        code = "MemoryError"
    found[path] = code, time.process_time() - start
print(json.dumps([found, (high_water().nbytes or 0) - before]))
"""


def open_all(tmp_path, files):
    """Return for each of some files its code and seconds, and the bytes that all took beyond what a good one takes."""
    (tmp_path / "good").write_bytes(graphs.packed(*graphs.floats()))
    paths = {str(tmp_path / f"file {i}"): name for i, name in enumerate(files)}
    for path, name in paths.items():
        with open(path, "wb") as file:
            file.write(files[name])
    given = json.dumps([str(tmp_path / "good"), *paths])
    done = subprocess.run([sys.executable, "-c", OPEN_ALL], input=given, capture_output=True, text=True, check=True)
    found, taken = json.loads(done.stdout)
    return {paths[path]: result for path, result in found.items()}, taken


@pytest.mark.parametrize("kind", graphs.KINDS)
def test_the_good_graphs_that_the_hostile_ones_differ_from_open_and_run(kind, tmp_path):
    submission = graphs.opened(tmp_path / "good", *graphs.KINDS[kind]())
    assert all(np.isfinite(output).all() for output in graphs.run(submission))


@pytest.mark.parametrize("name", hostile.HOSTILE_GRAPHS)
def test_a_hostile_graph_is_refused_with_its_code(name, tmp_path):
    (tmp_path / "hostile").write_bytes(hostile.built(name))
    with pytest.raises(Rejected) as refused:
        Submission.open(tmp_path / "hostile")
    assert refused.value.code == hostile.HOSTILE_GRAPHS[name][2], refused.value
    message = str(refused.value)
    assert message.isascii()
    assert message.isprintable()  # may be shown in a terminal
    assert len(message) < 400
    assert str(tmp_path) not in message  # and to strangers


def test_each_is_refused_within_a_second_and_all_within_200_mb(tmp_path):
    """The seconds are the processor's; the memory is what comes on top of Python, NumPy and the package."""
    found, taken = open_all(tmp_path, {name: hostile.built(name) for name in hostile.HOSTILE_GRAPHS})
    assert {name: code for name, (code, _) in found.items()} == {
        name: code for name, (_, _, code) in hostile.HOSTILE_GRAPHS.items()
    }
    assert max(seconds for _, seconds in found.values()) < 1.0
    assert taken < 200e6


@pytest.mark.parametrize("name", hostile.TAKEN_GRAPHS)
def test_what_cannot_be_run_or_counted_is_refused_when_it_is_opened(name, tmp_path):
    code, wanted = open_all(tmp_path, {name: hostile.built(name)})[0][name][0], hostile.TAKEN_GRAPHS[name][2]
    if code not in (wanted, "opened", "MemoryError"):
        pytest.fail(f"the graph is refused for something else, {code}: the test says nothing")
    assert code == wanted


# Changed at random

STRANGE = [0, 1, 2, -1, 7, 63, 2**31, 1e30, 0.5, True, False, None, "", "N", "T", "x", "int8", "window", [], {}]


def places(value, path=()):
    """Yield the path of every part of a JSON value."""
    yield path
    for key, below in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(below, (*path, key))


def at(value, path):
    for key in path:
        value = value[key]
    return value


def mutate(whole, rng):
    """Change one part of a graph in place: for another part of it, for a strange value, for nothing, or for two."""
    path = rng.choice([path for path in places(whole) if path])
    parent, key = at(whole, path[:-1]), path[-1]
    match rng.randrange(5):
        case 0:
            parent[key] = copy.deepcopy(at(whole, rng.choice(list(places(whole)))))
        case 1:
            parent[key] = rng.choice(STRANGE)
        case 2:
            del parent[key]
        case 3 if isinstance(parent, list):
            parent.insert(rng.randrange(len(parent) + 1), copy.deepcopy(parent[key]))
        case _:  # a part for one of the same kind, which gets further
            alike = [p for p in places(whole) if type(at(whole, p)) is type(parent[key])]
            parent[key] = copy.deepcopy(at(whole, rng.choice(alike)))


@settings(max_examples=400)
@given(st.sampled_from(sorted(graphs.KINDS)), st.integers(0, 2**32 - 1), st.integers(1, 3))
def test_a_graph_changed_at_random_is_run_or_rejected(tmp_path_factory, kind, seed, changes):
    """A refusal may come with the first run only where it is for the run: what `open` takes has the task's shape."""
    rng = random.Random(seed)
    whole, arrays = graphs.KINDS[kind]()
    for _ in range(changes):
        mutate(whole, rng)
    try:
        submission = graphs.opened(tmp_path_factory.getbasetemp() / "changed", whole, arrays)
        outputs = graphs.run(submission)
    except Rejected:
        return
    shape = (2, 10) if submission.task == graphs.IMAGES else (2, 16, graphs.VOCABULARY)
    assert outputs[0].shape == shape


# Drawn at random, so that shapes fit


@settings(max_examples=150)
@given(st.integers(0, 2**32 - 1))
def test_any_graph_whose_shapes_fit_is_run_as_its_layers_are_one_by_one(tmp_path_factory, seed):
    """However layers are put together into plans, the numbers are those of each node done alone."""
    submission = graphs.opened(tmp_path_factory.getbasetemp() / "drawn", *random_graphs.drawn(seed))
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
