"""`BenchmarkSuite`: a submission beside the reference, in turns, on samples that neither has seen.

Both run in processes of their own, of the same make, on one thread; a third one, this, has the clock and the labels.
Two scenarios, by the terms of MLPerf: *offline* gives many samples at once, *single-stream* one after the other. The
outputs that are timed have to be those that are judged.
"""

from __future__ import annotations

import math
import secrets
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tinytorch.benchmarks.tinymlperf.cores import one_core
from tinytorch.benchmarks.tinymlperf.export import export
from tinytorch.benchmarks.tinymlperf.limits import Limits
from tinytorch.benchmarks.tinymlperf.rejection import Code, Rejected
from tinytorch.benchmarks.tinymlperf.results import Result
from tinytorch.benchmarks.tinymlperf.sandbox import Sandbox, Timed
from tinytorch.benchmarks.tinymlperf.scenario import CONFIDENCE, PERCENTILE, Scenario, Turns
from tinytorch.benchmarks.tinymlperf.scoring import Ratios
from tinytorch.benchmarks.tinymlperf.submission import Submission
from tinytorch.benchmarks.tinymlperf.tasks import Split, Task, load_task
from tinytorch.kernels.progress import progress_bar
from tinytorch.profiling.timing.comparison import ratios
from tinytorch.profiling.timing.statistics import Estimate, samples_needed

PROMPT, GENERATED = 32, 32  # tokens: what single-stream is for a language model
STREAM = 16  # samples of a request, which are run one by one: what the request costs is shared among them
TURN = 0.01  # seconds of requests before the other one's: the first half warms the caches, the second counts
_FOR_MEDIAN = samples_needed(0.5, CONFIDENCE)  # turns
_NARROW = 0.01  # the interval of a speed-up is narrow enough
_CONTROLS = 5  # runs of the reference alone, before and after
TOLERANCE = 1.5  # the reference takes so much longer beside the submission than alone: something is wrong
_SAME = 1e-2  # how far an output may be from that of the same sample in a batch, relative to the largest


class Disturbed(RuntimeError):
    """The measurement says nothing: the reference did not run as it does alone. The submission is not to blame."""


class BenchmarkSuite:
    """Measure submissions.

    Parameters
    ----------
    seconds
        For each scenario of a submission; it ends earlier where the speed-up is known to 1 %, and later where fewer
        than 46 runs fit in, which the latency's percentile takes.
    launches
        How often both processes are started anew; the median of their speed-ups counts (see `Scenario`).
    seed
        Of the hidden samples and of the order of runs; a new one for each submission if it is left out.
    tolerance
        How many times as long as alone the reference may take beside the submission.
    limits
        Of the processes.
    hidden
        The organizer's own samples: a folder with a file `TASK.safetensors` for each task that has some.
    progress
        Whether to show a bar.

    Raises
    ------
    ValueError
        If `seconds` is no positive finite number, or `launches` below 1.

    Examples
    --------
    ``BenchmarkSuite().evaluate("submission.safetensors")``
    """

    def __init__(
        self,
        seconds: float = 10.0,
        seed: int | None = None,
        launches: int = 5,
        tolerance: float = TOLERANCE,
        limits: Limits | None = None,
        hidden: Path | None = None,
        progress: bool = False,
    ) -> None:
        if not (math.isfinite(seconds) and seconds > 0):
            raise ValueError(f"seconds is {seconds}: it is a positive number")
        if launches < 1:
            raise ValueError(f"launches is {launches}: it takes one at least")
        self.seconds, self.seed, self.limits, self.hidden = seconds, seed, limits or Limits(), hidden
        self.launches, self.tolerance, self.progress = launches, tolerance, progress
        self._sandbox: Callable[..., Any] = Sandbox

    def evaluate(self, path: str | Path) -> Result:
        """Measure one submission.

        Raises
        ------
        Rejected
            If there is anything wrong with it: the code says what.
        Disturbed
            If the machine was too busy for a result; try again.
        ValueError
            If the task has fewer hidden samples than there are launches.
        """
        submission = Submission.open(path, self.limits)
        own = None if self.hidden is None else self.hidden / f"{submission.task}.safetensors"
        task = load_task(submission.task, own if own is not None and own.exists() else None)
        seed = secrets.randbits(63) if self.seed is None else self.seed
        reference = export(task.reference(), task.name)
        with tempfile.TemporaryDirectory(prefix="tinymlperf-") as folder:
            beside = reference.save(Path(folder) / "reference.safetensors")
            with one_core():
                measured = self._measure(task, seed, Path(path), beside)
        mine, theirs = submission.costs, reference.costs
        speedups = [scenario.speedup for scenario in measured.scenarios.values()]
        found = Ratios(
            _mean(speedups),
            theirs.flops / mine.flops,
            reference.stored_bytes / submission.stored_bytes,
            theirs.peak_activation_bytes / mine.peak_activation_bytes,
            task.meets(measured.quality, measured.reference_quality),
        )
        return Result.of(task, submission, found, measured, seed)

    def _measure(self, task: Task, seed: int, path: Path, beside: Path) -> Measured:
        """Do all launches, each on its share of the samples; everything on one core, which shows what disturbs."""
        split, rng = task.hidden(seed), np.random.default_rng([seed, 1])
        if len(split) < self.launches:
            raise ValueError(f"{self.launches} launches need as many hidden samples; {task.name} has {len(split)}")
        shares = np.array_split(np.arange(len(split)), self.launches)
        size = min(task.batch_size, len(shares[-1]))
        done = []
        with progress_bar(total=self.launches, desc=task.name, disable=not self.progress) as bar:
            for share in shares:
                done.append(_Launch(self, task, split[share], size, rng).measure(path, beside))
                bar.update()
        outputs = [np.concatenate([launch.outputs[who] for launch in done]) for who in (0, 1)]
        quality, beside_quality = (task.quality(found, split) for found in outputs)
        stepped = [launch.stepped for launch in done if launch.stepped is not None]
        if stepped:
            one_by_one = task.quality(np.concatenate(stepped), split)
            quality = min(quality, one_by_one) if task.higher_is_better else max(quality, one_by_one)
        scenarios = {
            "offline": Scenario([launch.offline for launch in done]),
            "single-stream": Scenario([launch.stream for launch in done]),
        }
        return Measured(quality, beside_quality, scenarios)


@dataclass(frozen=True)
class Measured:
    """What came out of the runs: both qualities, in the task's `unit`, and the times by scenario."""

    quality: float
    reference_quality: float
    scenarios: Mapping[str, Scenario]


class _Done(NamedTuple):
    """What a launch found: the times of both scenarios, and the outputs of both for its samples.

    For texts also what the submission says if it is given them position by position, from its memory. Both count: the
    worse of the two is its quality.
    """

    offline: Turns
    stream: Turns
    outputs: list[np.ndarray]
    stepped: np.ndarray | None


class _Launch:
    """Both processes, once."""

    def __init__(self, suite: BenchmarkSuite, task: Task, split: Split, size: int, rng: np.random.Generator) -> None:
        self.suite, self.task, self.split, self.size, self.rng = suite, task, split, size, rng
        self.name, self.seconds = task.input.name, suite.seconds / suite.launches
        self.is_text = task.input.dtype == "int64"
        self.stepped: np.ndarray | None = None

    def measure(self, path: Path, beside: Path) -> _Done:
        """Do all runs, between those of the reference alone."""
        make, limits = self.suite._sandbox, self.suite.limits
        with make(beside, limits) as reference:
            self._control(reference)  # compiled, and in the caches
            alone = [self._control(reference) for _ in range(_CONTROLS)]
            with make(path, limits) as submission:
                both = (submission, reference)
                outputs = [self._all(one) for one in both]
                self.stepped = self._stepped(submission) if self.is_text else None
                known = outputs[0]
                offline, stream = (
                    self._turns(least, partial(request, submission, known), partial(request, reference, None))
                    for request, least in ((self._batch, _FOR_MEDIAN), (self._single, self._for_latency))
                )
            alone += [self._control(reference) for _ in range(_CONTROLS)]
        check_control(np.array(alone), offline.turns[:, 1], self.suite.tolerance)
        return _Done(offline, stream.shared(self._count), outputs, self.stepped)

    def _pieces(self) -> Iterator[Split]:
        return (self.split[start : start + self.size] for start in range(0, len(self.split), self.size))

    def _all(self, sandbox: Any) -> np.ndarray:
        """Go through all samples once: what comes out is judged."""
        return np.concatenate([self._offline(sandbox, samples).outputs[0] for samples in self._pieces()])

    def _stepped(self, submission: Any) -> np.ndarray:
        pieces = (samples.inputs for samples in self._pieces())
        return np.concatenate([submission.steps(ids, [self._shape(ids.shape)]).outputs[0] for ids in pieces])

    def _control(self, reference: Any) -> float:
        return self._offline(reference, self.split[: self.size]).seconds

    def _offline(self, sandbox: Any, samples: Split) -> Timed:
        found: Timed = sandbox.timed({self.name: samples.inputs}, [self._shape(samples.inputs.shape)])
        return found

    def _batch(self, sandbox: Any, known: np.ndarray | None) -> float:
        """Return the seconds of some samples at once; each has to come out as it is known."""
        at = int(self.rng.integers(len(self.split) - self.size + 1))
        timed = self._offline(sandbox, self.split[at : at + self.size])
        if known is not None:
            check_same(timed.outputs[0], known[at : at + self.size])
        return timed.seconds

    def _single(self, sandbox: Any, known: np.ndarray | None) -> float:
        """Return the seconds of some samples that are given one by one."""
        count = self._count
        at = int(self.rng.integers(len(self.split) - count + 1))
        inputs = self.split[at : at + count].inputs
        if self.is_text:
            timed = sandbox.generate(inputs[:, :PROMPT], GENERATED, [self._shape((1, GENERATED))])
            if known is not None and self.stepped is not None:
                check_same(timed.outputs[0][0, 0], known[at, PROMPT - 1], self.stepped[at, PROMPT - 1])
        else:
            timed = sandbox.stream({self.name: inputs}, [self._shape(inputs.shape)])
            if known is not None:
                check_same(timed.outputs[0], known[at : at + count])
        return float(timed.seconds)

    @property
    def _count(self) -> int:
        """How many samples a request of single-stream has: a text, or some images."""
        return 1 if self.is_text else STREAM

    def _shape(self, given: tuple[int, ...]) -> tuple[int, ...]:
        sizes = {"N": given[0], "T": given[1]}
        return tuple(sizes[s] if isinstance(s, str) else s for s in self.task.output.shape)

    @property
    def _for_latency(self) -> int:
        return max(_FOR_MEDIAN, math.ceil(samples_needed(PERCENTILE) / self.suite.launches))

    def _turns(self, least: int, submission: Callable[[], float], reference: Callable[[], float]) -> Turns:
        """Let both take turns in random order until the speed-up is known, or the time is over."""
        both, kept, turns, spent = (submission, reference), list[float](), list[list[float]](), 0.0
        while len(turns) < least or not (spent >= self.seconds or _is_narrow(turns)):
            turn = [0.0, 0.0]
            for who in self.rng.permutation(2):
                times = _turn(both[who])
                counted = times[len(times) // 2 :]
                turn[who] = float(np.median(counted))
                spent += math.fsum(times)
                kept += counted if who == 0 else []
            turns.append(turn)
        return Turns(np.array(turns), np.array(kept))


def _turn(request: Callable[[], float]) -> list[float]:
    times = [request()]
    while math.fsum(times) < TURN:
        times.append(request())
    return times


def _is_narrow(turns: list[list[float]]) -> bool:
    found = ratios(np.array(turns), CONFIDENCE)[0]
    return math.log(found.high / found.low) < 2 * math.log1p(_NARROW)


def check_control(alone: np.ndarray, beside: np.ndarray, tolerance: float = TOLERANCE) -> None:
    """Raise Disturbed if the reference's runs beside a submission took much longer than alone, seconds both."""
    slower = float(np.median(beside) / np.median(alone))
    if slower > tolerance:
        raise Disturbed(
            f"the reference took {slower:.1f} times as long beside the submission as alone: the machine was busy, or "
            "the submission's process disturbed it; measure again on a machine that does nothing else"
        )


def check_same(found: np.ndarray, known: np.ndarray, stepped: np.ndarray | None = None) -> None:
    """Raise Rejected if an output is not the one that the same sample had in a batch, but for rounding.

    A memory of 8 bits rounds what a whole text does not: what was `stepped` through it, which is judged as well, is as
    good an answer, and so is what differs from either by no more than they from one another.
    """
    allowed = _SAME * max(1.0, float(np.abs(known).max()))
    differs = float(np.abs(found - known).max())
    if stepped is not None:
        allowed = max(allowed, float(np.abs(stepped - known).max()))
        differs = min(differs, float(np.abs(found - stepped).max()))
    if not differs <= allowed:
        raise Rejected(Code.WRONG_OUTPUT, "a sample has another output when it comes again, alone or among others")


def _mean(estimates: list[Estimate]) -> Estimate:
    """Return the geometric mean; its interval has the ends of all."""
    logs = [[math.log(x) for x in (e.value, e.low, e.high)] for e in estimates]
    value, low, high = (math.exp(math.fsum(column) / len(logs)) for column in zip(*logs, strict=True))
    return Estimate(value, low, high)
