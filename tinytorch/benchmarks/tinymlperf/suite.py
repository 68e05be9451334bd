"""`BenchmarkSuite`: a submission beside the reference, in turns, on samples that neither has seen.

Both run in processes of their own, of the same make, on one thread; a third one, this, has the clock and the labels.
Two scenarios, by the terms of MLPerf: *offline* gives many samples at once, *single-stream* one after the other. The
outputs that are timed are the outputs that are judged.
"""

from __future__ import annotations

import math
import secrets
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from tinytorch.benchmarks.tinymlperf.cores import one_core
from tinytorch.benchmarks.tinymlperf.export import export
from tinytorch.benchmarks.tinymlperf.limits import Limits
from tinytorch.benchmarks.tinymlperf.rejection import Code, Rejected
from tinytorch.benchmarks.tinymlperf.results import Result
from tinytorch.benchmarks.tinymlperf.sandbox import Sandbox, Timed
from tinytorch.benchmarks.tinymlperf.scoring import Ratios
from tinytorch.benchmarks.tinymlperf.submission import Submission
from tinytorch.benchmarks.tinymlperf.tasks import Split, Task, load_task
from tinytorch.profiling.timing.comparison import ratios
from tinytorch.profiling.timing.statistics import Estimate, median_interval, quantile_interval, samples_needed

PERCENTILE = 0.9  # of the latency that single-stream states, as in MLPerf
PROMPT, GENERATED = 32, 32  # tokens: what single-stream is for a language model
STREAM = 16  # samples of a request, which are run one by one: what the request costs is shared among them
_CONFIDENCE = 0.95
_NARROW = 0.01  # the interval of a speed-up is narrow enough
_CONTROLS = 5  # runs of the reference alone, before and after
TOLERANCE = 1.5  # the reference takes so much longer beside the submission than alone: something is wrong
_SAME = 1e-2  # how far an output may be from that of the same sample in a batch, relative to the largest


class Disturbed(RuntimeError):
    """The measurement says nothing: the reference did not run as it does alone. The submission is not to blame."""


@dataclass(frozen=True)
class Scenario:
    """What was measured: for each launch, seconds of its runs, (rounds, 2), the submission's first.

    In single-stream they are those of one sample. Where a process's memory happens to lie makes it up to a third slower
    for all of its life, and nothing makes it faster: of each program its best launch counts.
    """

    launches: Sequence[np.ndarray]

    def best(self, who: int) -> Estimate:
        """Return the median of a program's runs in its best launch, seconds: 0 the submission, 1 the reference."""
        return min((median_interval(times[:, who], _CONFIDENCE) for times in self.launches), key=lambda e: e.value)

    @property
    def rounds(self) -> int:
        """How many runs there were of each."""
        return sum(map(len, self.launches))

    @property
    def speedup(self) -> Estimate:
        """The reference's time over the submission's."""
        mine, theirs = self.best(0), self.best(1)
        return Estimate(theirs.value / mine.value, theirs.low / mine.high, theirs.high / mine.low)

    @property
    def latency(self) -> Estimate:
        """The 90th percentile of all of the submission's runs, seconds, with its interval."""
        return quantile_interval(np.concatenate(self.launches)[:, 0], PERCENTILE, _CONFIDENCE)


class BenchmarkSuite:
    """Measure submissions.

    Parameters
    ----------
    seconds
        For each scenario of a submission; it ends earlier where the speed-up is known to 1 %, and later where fewer
        than 46 runs fit in, which the latency's percentile takes.
    launches
        How often both processes are started anew; the best launch of each counts (see `Scenario`).
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
        with tqdm(total=self.launches, desc=task.name, leave=False, disable=not self.progress) as bar:
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
    """What came out of the runs."""

    quality: float
    reference_quality: float
    scenarios: Mapping[str, Scenario]


class _Done(NamedTuple):
    """What a launch found: the times of both scenarios, and the outputs of both for its samples.

    For texts also what the submission says if it is given them position by position, from its memory. Both count: the
    worse of the two is its quality.
    """

    offline: np.ndarray
    stream: np.ndarray
    outputs: list[np.ndarray]
    stepped: np.ndarray | None


class _Launch:
    """Both processes, once."""

    def __init__(self, suite: BenchmarkSuite, task: Task, split: Split, size: int, rng: np.random.Generator) -> None:
        self.suite, self.task, self.split, self.size, self.rng = suite, task, split, size, rng
        self.name, self.seconds = task.input.name, suite.seconds / suite.launches
        self.is_text = task.input.dtype == "int64"

    def measure(self, path: Path, beside: Path) -> _Done:
        """Do all runs, between those of the reference alone."""
        make, limits = self.suite._sandbox, self.suite.limits
        with make(beside, limits) as reference:
            self._control(reference)  # compiled, and in the caches
            alone = [self._control(reference) for _ in range(_CONTROLS)]
            with make(path, limits) as submission:
                both = (submission, reference)
                for one in both:
                    self._control(one)
                    self._single(one, self._some(0))
                offline, outputs = self._batches(both)
                stepped = self._stepped(submission) if self.is_text else None
                stream = self._stream(both, outputs[0])
            alone += [self._control(reference) for _ in range(_CONTROLS)]
        check_control(np.array(alone), offline[:, 1], self.suite.tolerance)
        return _Done(offline, stream, outputs, stepped)

    def _stepped(self, submission: Any) -> np.ndarray:
        pieces = (self.split.inputs[i : i + self.size] for i in range(0, len(self.split), self.size))
        return np.concatenate([submission.steps(ids, [self._shape(ids.shape)]).outputs[0] for ids in pieces])

    def _control(self, reference: Any) -> float:
        return self._offline(reference, self.split[: self.size]).seconds

    def _offline(self, sandbox: Any, samples: Split) -> Timed:
        found: Timed = sandbox.timed({self.name: samples.inputs}, [self._shape(samples.inputs.shape)])
        return found

    def _single(self, sandbox: Any, sample: Split) -> Timed:
        if self.is_text:
            prompt = sample.inputs[:, :PROMPT]
            found: Timed = sandbox.generate(prompt, GENERATED, [self._shape((1, GENERATED))])
            return found
        streamed: Timed = sandbox.stream({self.name: sample.inputs}, [self._shape(sample.inputs.shape)])
        return Timed(streamed.seconds / len(sample), streamed.outputs)

    def _some(self, start: int) -> Split:
        """Return the samples of a request of single-stream: a text, or some images."""
        return self.split[start : start + (1 if self.is_text else STREAM)]

    def _shape(self, given: tuple[int, ...]) -> tuple[int, ...]:
        sizes = {"N": given[0], "T": given[1]}
        return tuple(sizes[s] if isinstance(s, str) else s for s in self.task.output.shape)

    def _turns(self, call: Callable[[Any], Timed], both: tuple[Any, Any]) -> tuple[list[float], list[np.ndarray]]:
        """Let both do the same, in random order; return seconds and outputs, the submission's first."""
        found: list[Timed | None] = [None, None]
        for who in self.rng.permutation(2):
            found[who] = call(both[who])
        done = [timed for timed in found if timed is not None]
        return [timed.seconds for timed in done], [timed.outputs[0] for timed in done]

    def _batches(self, both: tuple[Any, Any]) -> tuple[np.ndarray, list[np.ndarray]]:
        """Go through all samples once; then again through some, while the interval is wide and time is left."""
        size, times = self.size, list[list[float]]()
        outputs: list[list[np.ndarray]] = [[], []]
        for start in range(0, len(self.split), size):
            samples = self.split[start : start + size]
            seconds, found = self._turns(partial(self._offline, samples=samples), both)
            for kept, array in zip(outputs, found, strict=True):
                kept.append(array)
            if len(samples) == size:
                times.append(seconds)
        while not self._enough(times, samples_needed(0.5, _CONFIDENCE)):
            start = int(self.rng.integers(len(self.split) - size + 1))
            times.append(self._turns(partial(self._offline, samples=self.split[start : start + size]), both)[0])
        return np.array(times), [np.concatenate(kept) for kept in outputs]

    def _stream(self, both: tuple[Any, Any], known: np.ndarray) -> np.ndarray:
        """One sample after the other, and each has to come out as it did in its batch."""
        times: list[list[float]] = []
        least = max(math.ceil(samples_needed(PERCENTILE) / self.suite.launches), samples_needed(0.5))
        while not self._enough(times, least):
            at = int(self.rng.integers(len(self.split) - len(self._some(0)) + 1))
            samples = self._some(at)
            seconds, found = self._turns(partial(self._single, sample=samples), both)
            times.append(seconds)
            if self.is_text:
                check_same(found[0][0, 0], known[at, PROMPT - 1])
            else:
                check_same(found[0], known[at : at + len(samples)])
        return np.array(times)

    def _enough(self, times: list[list[float]], least: int) -> bool:
        if len(times) < least:
            return False
        found = ratios(np.array(times), _CONFIDENCE)[0]
        narrow = math.log(found.high / found.low) < 2 * math.log1p(_NARROW)
        return narrow or math.fsum(map(math.fsum, times)) >= self.seconds


def check_control(alone: np.ndarray, beside: np.ndarray, tolerance: float = TOLERANCE) -> None:
    """Raise Disturbed if the reference's runs beside a submission took much longer than alone, seconds both."""
    slower = float(np.median(beside) / np.median(alone))
    if slower > tolerance:
        raise Disturbed(
            f"the reference took {slower:.1f} times as long beside the submission as alone: the machine was busy, or "
            "the submission's process disturbed it; measure again on a machine that does nothing else"
        )


def check_same(found: np.ndarray, known: np.ndarray) -> None:
    """Raise Rejected if an output is not the one that the same sample had in a batch, but for rounding."""
    if np.abs(found - known).max() > _SAME * max(1.0, float(np.abs(known).max())):
        raise Rejected(Code.WRONG_OUTPUT, "a sample has another output alone than in a batch")


def _mean(estimates: list[Estimate]) -> Estimate:
    """Return the geometric mean; its interval has the ends of all."""
    logs = [[math.log(x) for x in (e.value, e.low, e.high)] for e in estimates]
    value, low, high = (math.exp(math.fsum(column) / len(logs)) for column in zip(*logs, strict=True))
    return Estimate(value, low, high)
