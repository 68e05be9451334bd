"""A graph that is not as it must be is refused with its code, soon, in little memory, and never otherwise."""

import copy
import importlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinytorch.benchmarks.tinymlperf.operations import OPERATIONS
from tinytorch.benchmarks.tinymlperf.rejection import Rejected

files = importlib.import_module("tests.20_benchmarking.hostile_files")
graphs = importlib.import_module("tests.20_benchmarking.graphs")
hostile = importlib.import_module("tests.20_benchmarking.hostile_graphs")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a good file and all hostile ones, numbered."""
    made = tmp_path_factory.mktemp("graphs")
    (made / "good").write_bytes(graphs.packed(*graphs.floats()))
    for number, name in enumerate(hostile.HOSTILE_GRAPHS):
        (made / f"{number}").write_bytes(hostile.built(name))
    return made


@pytest.fixture(scope="module")
def opened(folder):
    """What became of them, in a process whose memory is limited: by name code, message and seconds; bytes of all."""
    paths = {name: folder / f"{number}" for number, name in enumerate(hostile.HOSTILE_GRAPHS)}
    done = files.open_all("submission", "Submission.open", folder / "good", paths.values())
    return {name: done.found[str(path)] for name, path in paths.items()}, done.after - done.before


@pytest.mark.parametrize("name", hostile.HOSTILE_GRAPHS)
def test_a_hostile_graph_is_refused_with_its_code(name, folder, opened):
    code, message, _ = opened[0][name]
    assert code == hostile.HOSTILE_GRAPHS[name][2], message
    assert message.isascii()
    assert message.isprintable()  # may be shown in a terminal
    assert len(message) < 400
    assert str(folder) not in message  # and to strangers


def test_each_is_refused_within_a_second_and_all_within_200_mb(opened):
    """The seconds are the processor's; the memory is what comes on top of Python, NumPy and the package."""
    found, taken = opened
    assert max(seconds for _, _, seconds in found.values()) < 1.0
    assert taken < 200e6


# Changed at random

STRANGE = [
    0, 1, 2, -1, 7, 63, 2**31, 1e30, 1e200, 0.5, float("nan"), True, False, None, "", "N", "T", "x", "int8", "window",
    "exec", [], {},
]  # fmt: skip
LETTERS = "aN_.-/0 \0\n\u00e9\u202e\ud800"


def places(value, path=()):
    """Yield the path of every part of a JSON value."""
    yield path
    for key, below in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(below, (*path, key))


def at(value, path):
    for key in path:
        value = value[key]
    return value


def strange(rng):
    match rng.randrange(5):
        case 0:
            return rng.randint(-(2**40), 2**40)
        case 1:
            return "".join(rng.choices(LETTERS, k=rng.randint(1, 8)))
        case _:
            return rng.choice(STRANGE)


def mutate(whole, rng):
    """Change one part of a graph in place: for another, for something strange or near it, for nothing, or for two."""
    path = rng.choice([path for path in places(whole) if path])
    parent, key = at(whole, path[:-1]), path[-1]
    match rng.randrange(7):
        case 0:
            parent[key] = copy.deepcopy(at(whole, rng.choice(list(places(whole)))))
        case 1:
            parent[key] = strange(rng)
        case 2:
            del parent[key]
        case 3 if isinstance(parent, list):
            parent.insert(rng.randrange(len(parent) + 1), copy.deepcopy(parent[key]))
        case 4 if type(parent[key]) is int:
            parent[key] += rng.randint(-3, 3)
        case 5 if key == "op":
            parent[key] = rng.choice(sorted(OPERATIONS))
        case _:  # a part for one of the same kind, which gets further
            alike = [p for p in places(whole) if type(at(whole, p)) is type(parent[key])]
            parent[key] = copy.deepcopy(at(whole, rng.choice(alike)))


@settings(max_examples=600)
@given(st.sampled_from(sorted(graphs.KINDS)), st.randoms(), st.integers(1, 3))
def test_a_graph_changed_at_random_is_run_or_rejected(tmp_path_factory, kind, rng, changes):
    """A refusal may come with the first run only where it is for the run: what `open` takes has the task's shape."""
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
