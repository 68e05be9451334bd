"""The suite, with processes whose times are known: what is judged is what was timed, and tricks are caught."""

import json
from pathlib import Path

import numpy as np
import pytest

from tinytorch import nn, zoo
from tinytorch.benchmarks.tinymlperf.execution import Program
from tinytorch.benchmarks.tinymlperf.export import export
from tinytorch.benchmarks.tinymlperf.rejection import Rejected
from tinytorch.benchmarks.tinymlperf.results import Result
from tinytorch.benchmarks.tinymlperf.sandbox import Timed
from tinytorch.benchmarks.tinymlperf.scenario import Scenario, Turns
from tinytorch.benchmarks.tinymlperf.submission import Submission
from tinytorch.benchmarks.tinymlperf.suite import BenchmarkSuite, Disturbed, check_control
from tinytorch.benchmarks.tinymlperf.tasks import TASKS

IMAGES, SNEAKERS, TEXT = "image-classification", "anomaly-detection", "language-model"
MODELS = {IMAGES: "reference_cnn", SNEAKERS: "anomaly_autoencoder", TEXT: "char_gpt"}


class InProcess:
    """A sandbox without a process: it runs the graph here, and a run takes `seconds`."""

    alive = 0
    seconds = {"reference": 1.0, "submission": 0.5}  # noqa: RUF012

    def __init__(self, path, limits):
        self.who = "reference" if Path(path).name == "reference.safetensors" else "submission"
        self.path = path
        submission = Submission.open(path, limits)
        self.program = Program(submission.graph, submission.arrays)

    def __enter__(self):
        InProcess.alive += 1
        return self

    def __exit__(self, *exc):
        InProcess.alive -= 1

    def answer(self, outputs, inputs):
        return outputs

    def time(self):
        return self.seconds[self.who]

    def timed(self, inputs, shapes):
        outputs = self.answer(self.program.run(inputs), inputs)
        assert [o.shape for o in outputs] == shapes
        return Timed(self.time(), outputs)

    def stream(self, inputs, shapes):
        (x,) = inputs.values()
        outputs = [self.program.run({"x": x[i : i + 1]})[0] for i in range(len(x))]
        return Timed(self.time() * len(x), self.answer([np.concatenate(outputs)], inputs))

    def steps(self, ids, shapes):
        self.program.reset(len(ids))
        scores = np.concatenate([self.program.step(ids[:, i : i + 1]) for i in range(ids.shape[1])], axis=1)
        assert [scores.shape] == shapes
        return Timed(self.time(), [scores])

    def generate(self, ids, count, shapes):
        outputs = [self.program.generate(ids, count)]
        assert [o.shape for o in outputs] == shapes
        return Timed(self.time(), outputs)


@pytest.fixture
def files(tmp_path):
    def save(model: nn.Module, task: str) -> Path:
        return export(model, task).save(tmp_path / f"{task}.safetensors")

    return save


@pytest.fixture(autouse=True)
def few_samples(monkeypatch):
    for task, size in ((IMAGES, 448), (SNEAKERS, 1600), (TEXT, 6)):
        monkeypatch.setattr(TASKS[task], "hidden_size", size)
    monkeypatch.setattr(TASKS[TEXT], "batch_size", 1)


def suite(sandbox: type = InProcess, **options) -> BenchmarkSuite:
    made = BenchmarkSuite(**({"seconds": 1.0, "seed": 3, "launches": 1} | options))
    made._sandbox = sandbox
    return made


@pytest.mark.parametrize("task", MODELS)
def test_the_reference_has_a_thousand_times_the_root_of_its_speed_up(files, task):
    found = suite().evaluate(files(zoo.load(MODELS[task]), task))
    assert found.passed
    assert found.quality == found.reference_quality
    assert found.ratios.speedup.value == pytest.approx(2.0)
    assert found.score.score.value == pytest.approx(1000 * 2**0.5)
    assert found.score.deterministic == 1000.0
    assert set(found.scenarios) == {"offline", "single-stream"}
    assert found.scenarios["single-stream"]["rounds"] >= 46
    assert InProcess.alive == 0


def test_a_result_can_be_written_and_read_and_its_score_is_computed_anew(files):
    found = suite().evaluate(files(zoo.load("reference_cnn"), IMAGES))
    text = found.to_json()
    assert Result.from_json(text) == found
    boasted = json.loads(text) | {"score": [9e9, 9e9, 9e9], "deterministic_score": 9e9}
    assert Result.from_json(json.dumps(boasted)).score == found.score
    assert "| score |" in found.to_markdown()
    assert "image-classification, closed division; seed 3" in str(found)


def test_the_deterministic_part_is_the_same_whatever_the_seed_and_the_time(files):
    class Slow(InProcess):
        seconds = {"reference": 1.0, "submission": 7.0}  # noqa: RUF012

    path = files(zoo.load("reference_cnn"), IMAGES)
    first, second = suite(seed=1).evaluate(path), suite(Slow, seed=2).evaluate(path)
    assert first.score.deterministic == second.score.deterministic
    assert first.score.score.value > second.score.score.value


# Tricks


def test_constants_miss_the_target_and_get_the_floor(files):
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    model[1].weight.data[...] = 0
    found = suite().evaluate(files(model, IMAGES))
    assert not found.passed
    assert found.score.score.value == pytest.approx(1000 / 32)


def test_a_memory_that_forgets_too_much_misses_the_target(tmp_path):
    """Whole texts are read without it: what is said position by position is judged, too."""
    path = export(zoo.load("char_gpt"), TEXT, cache="window", window=1, sinks=0).save(tmp_path / "text.safetensors")
    found = suite().evaluate(path)
    assert found.quality > found.reference_quality + 0.3
    assert not found.passed


class FromMemory(InProcess):
    """What it was asked first, it answers always."""

    first: dict[tuple[str, int], list[np.ndarray]] = {}  # noqa: RUF012

    def answer(self, outputs, inputs):
        if self.who == "reference":
            return outputs
        return self.first.setdefault((self.who, len(outputs[0])), outputs)


def test_answers_from_memory_are_caught(files):
    """Each request has other samples, and the answers that are timed are those that are judged."""
    FromMemory.first.clear()
    with pytest.raises(Rejected, match=r"wrong-output.*when it comes again"):
        suite(FromMemory).evaluate(files(zoo.load("reference_cnn"), IMAGES))


class FromMemoryInBatches(FromMemory):
    def stream(self, inputs, shapes):
        return InProcess(self.path, None).stream(inputs, shapes)


def test_answers_from_memory_in_batches_alone_are_caught_too(files):
    FromMemory.first.clear()
    with pytest.raises(Rejected, match="wrong-output"):
        suite(FromMemoryInBatches).evaluate(files(zoo.load("reference_cnn"), IMAGES))


class Disturbing(InProcess):
    """While it lives, the reference takes twice as long."""

    def time(self):
        return self.seconds[self.who] * (2.0 if self.who == "reference" and InProcess.alive == 2 else 1.0)


def test_a_submission_that_slows_the_reference_gets_no_result(files):
    with pytest.raises(Disturbed, match=r"2\.0 times as long beside the submission"):
        suite(Disturbing).evaluate(files(zoo.load("reference_cnn"), IMAGES))
    assert InProcess.alive == 0


def test_the_control_allows_what_a_busy_machine_does():
    check_control(np.array([1.0, 1.1, 0.9]), np.array([1.3, 1.4, 1.2]))
    with pytest.raises(Disturbed):
        check_control(np.array([1.0, 1.1, 0.9]), np.array([1.7, 1.6, 1.8]))


def test_numbers_that_a_file_claims_are_refused_or_not_looked_at(files, tmp_path):
    from tinytorch.benchmarks.tinymlperf import file

    submission = export(zoo.load("reference_cnn"), IMAGES)
    metadata = {"tinymlperf": submission.graph.to_json(), "score": "99999"}
    file.write(tmp_path / "boast.safetensors", metadata, submission.arrays)
    with pytest.raises(Rejected, match="bad-metadata"):
        suite().evaluate(tmp_path / "boast.safetensors")


# How long it goes on


def test_it_ends_where_the_speed_up_is_known_and_goes_on_where_it_is_not(files):
    rng = np.random.default_rng(0)

    class Noisy(InProcess):
        def time(self):
            return 0.01 * float(np.exp(rng.normal(0, 0.5)))

    path = files(zoo.load("anomaly_autoencoder"), SNEAKERS)
    certain, uncertain = suite().evaluate(path), suite(Noisy, seconds=2.0).evaluate(path)
    assert certain.scenarios["offline"]["rounds"] == 6
    assert uncertain.scenarios["offline"]["rounds"] > 50


def test_a_scenario_knows_its_speed_up_and_its_latency():
    times = np.array([[1.0 + 0.01 * i, 3.0 + 0.03 * i] for i in range(100)])
    scenario = Scenario([Turns(times, times[:, 0])])
    assert scenario.speedup.value == pytest.approx(3.0)
    assert (scenario.seconds(0), scenario.seconds(1)) == pytest.approx((1.495, 4.485))
    assert scenario.latency.low < scenario.latency.value < scenario.latency.high
    assert scenario.latency.value == pytest.approx(1.891)


def launch(speedup: float, slower: float = 1.0) -> Turns:
    """Return a launch whose turns' ratios differ by 10 %, on a machine that is so many times slower meanwhile."""
    mine = slower * np.linspace(1.0, 1.1, 20)
    return Turns(np.stack([mine, np.full(20, slower * speedup * 1.05)], axis=1), mine)


def test_the_median_launch_counts_and_the_machine_s_speed_does_not():
    found = Scenario([launch(3.0), launch(2.0, 5.0), launch(2.1), launch(9.0), launch(2.2, 0.1)]).speedup
    assert (found.low, found.value, found.high) == pytest.approx((2.0, 2.2, 9.0), rel=0.01)


def test_of_few_launches_the_interval_reaches_over_theirs():
    one, other = Scenario([launch(2.0)]).speedup, Scenario([launch(3.0)]).speedup
    both = Scenario([launch(2.0), launch(3.0)]).speedup
    assert (both.low, both.high) == (one.low, other.high)
    assert both.value == pytest.approx(6**0.5, rel=0.01)
    assert one.low < one.value < one.high


def test_fewer_requests_than_a_percentile_takes_give_no_latency():
    assert Scenario([launch(2.0)] * 2).latency is None
    assert Scenario([launch(2.0)] * 3).latency is not None


def test_in_a_turn_the_first_half_of_the_requests_warms_up_and_does_not_count(files):
    class Cold(InProcess):
        """The reference's first three requests of a turn take six times as long."""

        last, row = "", 0

        def time(self):
            Cold.row = Cold.row + 1 if Cold.last == self.who else 0
            Cold.last = self.who
            if self.who == "submission":
                return 0.00025
            return 0.003 if Cold.row < 3 else 0.0005

    found = suite(Cold).evaluate(files(zoo.load("anomaly_autoencoder"), SNEAKERS))
    assert found.scenarios["offline"]["speedup"][1] == pytest.approx(2.0)


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan")])
def test_seconds_that_are_none_are_refused(seconds):
    with pytest.raises(ValueError, match="seconds"):
        BenchmarkSuite(seconds=seconds)


def test_fewer_samples_than_launches_are_refused(files, monkeypatch):
    monkeypatch.setattr(TASKS[IMAGES], "hidden_size", 3)
    with pytest.raises(ValueError, match=r"5 launches.*has 3"):
        suite(launches=5).evaluate(files(zoo.load("reference_cnn"), IMAGES))


# For real


def test_a_submission_is_measured_in_processes_of_their_own(files):
    found = BenchmarkSuite(seconds=0.2, seed=1, launches=2, tolerance=1000).evaluate(
        files(zoo.load("reference_cnn"), IMAGES)
    )
    assert found.passed
    assert found.quality == pytest.approx(found.reference_quality)
    assert found.ratios.speedup.low > 0.2
    assert found.score.deterministic == 1000.0
