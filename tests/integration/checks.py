"""What a combination has to stand: it says what it should, costs what was predicted, is taken by what follows."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from tests.integration.optimisations import Model
from tinytorch import Tensor, nn, no_grad
from tinytorch.acceleration import Plan
from tinytorch.benchmarks.tinymlperf.execution import Program
from tinytorch.benchmarks.tinymlperf.export import export
from tinytorch.benchmarks.tinymlperf.submission import Submission
from tinytorch.benchmarks.tinymlperf.tasks import Split, load_task
from tinytorch.kernels.softmax import log_softmax
from tinytorch.profiling import Count, FLOPCounter, ProfilerContext

TASK = {"cnn": "image-classification", "gpt": "language-model"}
IMAGES, TEXTS = 1000, 4  # of which quality is found
_FEW = {"cnn": 64, "gpt": 2}  # inputs whose outputs are compared


@cache
def public(which: str) -> Split:
    """Return the samples of a task that everybody may look at."""
    return load_task(TASK[which]).public()


def inputs(which: str, count: int) -> np.ndarray:
    """Return images (N, 1, 28, 28), or texts (N, 256)."""
    return public(which).inputs[:count]


def run(model: Model, x: np.ndarray) -> np.ndarray:
    """Return the outputs of a model of any kind."""
    with no_grad():
        return model(x) if isinstance(model, Plan) else np.asarray(model(Tensor(x) if x.ndim > 2 else x).data)


def outputs(which: str, model: Model) -> np.ndarray:
    """Return the outputs for a few inputs: scores of classes, or of the next character."""
    return run(model, inputs(which, _FEW[which]))


def need_near(found: np.ndarray, expected: np.ndarray, tolerance: float) -> None:
    """Fail if an output differs by more than a share of the largest one."""
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * float(np.abs(expected).max()))


def loss(which: str, model: Model) -> float:
    """Return how bad a model is: wrong answers in percent, or nats for a character."""
    if which == "cnn":
        split = public(which)[:IMAGES]
        return 100 * float((run(model, split.inputs).argmax(axis=1) != split.labels).mean())
    split = public(which)[:TEXTS]
    found = np.take_along_axis(log_softmax(run(model, split.inputs)), split.labels[..., None], axis=-1)
    return -float(found.mean(dtype=np.float64))


def count(which: str, model: nn.Module) -> Count:
    """Return the work for one input, as the profiler sees it."""
    with FLOPCounter(model) as counter:
        run(model, inputs(which, 1))
    return counter.total


def weight_bytes(submission: Submission) -> int:
    """Return the bytes of all that stands for weights of layers: values, their places, and scales."""
    kept = ("values", "indices", "indptr", "weight_scale")
    return sum(
        array.nbytes
        for name, array in submission.arrays.items()
        if name.endswith(kept) or (name.endswith("weight") and array.ndim > 1)  # those of norms are vectors
    )


def need_profile(which: str, model: nn.Module) -> None:
    """Fail if the profiler does not see the model, or the counter counts what it does not know."""
    x = inputs(which, 1)
    with ProfilerContext(model) as profile:
        run(model, x)
    first = profile.events[0]
    assert (first.kind, first.name) == ("module", type(model).__name__)
    with FLOPCounter(model) as counter:
        run(model, x)
    assert counter.coverage == 1
    assert counter.total.flops > 0


def need_submission(which: str, model: nn.Module, folder: Path, **how: Any) -> Submission:
    """Hand a model in, open the file, and fail if what is run there does not say what the model says."""
    submission = Submission.open(export(model, TASK[which], **how).save(folder / "model.safetensors"))
    x = inputs(which, _FEW[which])
    (found,) = Program(submission.graph, submission.arrays).run({submission.graph.inputs[0].name: x})
    need_near(found, run(model, x), 1e-4)
    assert submission.stored_bytes == (folder / "model.safetensors").stat().st_size
    return submission
