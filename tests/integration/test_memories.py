"""What a GPT remembers goes with everything that was done to the GPT, and one kind of memory excludes the others."""

import itertools
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from tests.integration import checks
from tests.integration.optimisations import GPT, MEMORIES, SINKS, WINDOW, reference
from tinytorch import no_grad
from tinytorch.benchmarks.tinymlperf.execution import Program
from tinytorch.benchmarks.tinymlperf.export import export
from tinytorch.benchmarks.tinymlperf.rejection import Rejected
from tinytorch.benchmarks.tinymlperf.submission import Submission

PROMPT, LENGTH = 40, 48
STATES = {
    "nothing": (),
    **{name: (name,) for name in GPT},
    "everything": ("low_rank", "zeros", "sparse_layers", "quantize"),
}


@cache
def after(*names):
    return GPT[names[-1]].apply(after(*names[:-1])) if names else reference("gpt")


@pytest.mark.parametrize("memory", MEMORIES)
@pytest.mark.parametrize("state", STATES)
def test_a_memory_goes_with_whatever_was_done_to_the_model_before(state, memory, tmp_path):
    model, how = after(*STATES[state]), MEMORIES[memory]
    ids, caches = checks.inputs("gpt", 2)[:, :LENGTH], how.make(model, 2)
    with no_grad():
        steps = [model(ids[:, :PROMPT], caches).data]
        steps += [model(ids[:, i : i + 1], caches).data for i in range(PROMPT, LENGTH)]
        expected = model(ids).data
    tolerance = 0.1 if memory == "cache_int8" else 0.01 if "quantize" in STATES[state] else 1e-4
    checks.need_near(np.concatenate(steps, axis=1), expected, tolerance)

    submission = checks.need_submission("gpt", model, tmp_path, **how.option)
    program = Program(submission.graph, submission.arrays)
    program.reset(2)
    again = [program.step(ids[:, :PROMPT]), *(program.step(ids[:, i : i + 1]) for i in range(PROMPT, LENGTH))]
    checks.need_near(np.concatenate(again, axis=1), np.concatenate(steps, axis=1), tolerance)
    positions = WINDOW + SINKS if memory == "window" else 256
    without = export(model, checks.TASK["gpt"], cache="none").costs.peak_activation_bytes
    assert submission.costs.peak_activation_bytes - without == positions * how.position
    assert how.make(model, 1).nbytes == positions * how.position


@pytest.mark.parametrize("memory", MEMORIES)
@pytest.mark.parametrize("name", GPT)
def test_what_a_model_remembers_is_worth_nothing_to_what_was_made_of_it(name, memory):
    """First the memory, then the optimisation: it is refused until the memory is reset."""
    model, ids = reference("gpt"), checks.inputs("gpt", 2)[:, :LENGTH]
    caches = MEMORIES[memory].make(model, 2)
    with no_grad():
        model(ids[:, :PROMPT], caches)
        other = after(name)
        for start, stop in ((PROMPT, LENGTH), (PROMPT, PROMPT + 1)):
            with pytest.raises(ValueError, match=r"keys and values of another model: reset\(\) it, or make another"):
                other(ids[:, start:stop], caches)
        caches.reset()
        found, expected = other(ids, caches).data, other(ids).data
    checks.need_near(found, expected, 0.1 if memory == "cache_int8" else 0.01 if name == "quantize" else 1e-4)


@pytest.mark.parametrize(("one", "other"), list(itertools.permutations(MEMORIES, 2)))
def test_two_kinds_of_memory_exclude_one_another(one, other):
    submission = export(reference("gpt"), checks.TASK["gpt"], **MEMORIES[one].option)
    places = [i for i, node in enumerate(submission.graph.nodes) if node.op == "attention"]
    nodes = list(submission.graph.nodes)
    nodes[places[1]] = replace(nodes[places[1]], attributes={**nodes[places[1]].attributes, **MEMORIES[other].option})
    mixed = Submission(replace(submission.graph, nodes=tuple(nodes)), submission.arrays)
    with pytest.raises(Rejected, match=r"bad-attribute.*need the same"):
        mixed.check()
