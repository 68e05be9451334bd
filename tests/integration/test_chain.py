"""From random weights to a place on the leaderboard, with every optimisation on the way, for images and for texts."""

import copy
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from tests.integration import checks
from tests.integration.optimisations import fused, quantized, reference
from tinytorch import data, nn, no_grad, optim
from tinytorch.acceleration import Plan
from tinytorch.benchmarks.tinymlperf import evaluator, suite
from tinytorch.benchmarks.tinymlperf.execution import SPARSE_FROM, Program
from tinytorch.benchmarks.tinymlperf.leaderboard import Leaderboard, State
from tinytorch.benchmarks.tinymlperf.tasks import TASKS, load_task
from tinytorch.caching import QuantizedKVCache
from tinytorch.compression import (
    MagnitudePruner,
    factorize,
    fine_tune,
    measure_sparsity,
    prune_filters,
    study,
    to_sparse,
)
from tinytorch.nn.functional import cross_entropy
from tinytorch.profiling import FLOPCounter, ProfilerContext
from tinytorch.quantization import quantize_dynamic

QUICK = evaluator.How(seconds=0.05, launches=1, tolerance=1000.0)


@pytest.fixture
def board(tmp_path, monkeypatch):
    """A competition of few samples, in which other architectures than the reference's may take part."""
    for task, size in ((checks.TASK["cnn"], 256), (checks.TASK["gpt"], 4)):
        monkeypatch.setattr(TASKS[task], "hidden_size", size)
    monkeypatch.setattr(TASKS[checks.TASK["gpt"]], "batch_size", 2)
    monkeypatch.setattr(suite, "GENERATED", 4)
    made, now = Leaderboard(f"sqlite:///{tmp_path / 'board.db'}"), datetime.now(UTC)
    made.create_competition(
        tasks=list(checks.TASK.values()), deadline=now + timedelta(days=1), daily_quota=9, division="open", now=now,
        seed=1,
    )  # fmt: skip
    yield made
    made.close()


def ranked(board, submissions):
    """Hand everything in, the best last, let it be measured, and return what the leaderboard says of each."""
    now = datetime.now(UTC)
    ada = board.authenticate(board.add_participant("ada", now=now).token)
    numbers = [board.submit(ada, submission.to_bytes(), now=now).submission for submission in submissions]
    assert evaluator.drain(board, QUICK) == len(submissions)
    assert [attempt.state for attempt in board.attempts(ada)] == [State.SCORED] * len(submissions)
    (first,) = board.standings()[submissions[0].task]
    assert (first.rank, first.entry.participant, first.entry.submission) == (1, "ada", numbers[-1])
    assert first.entry.passed
    assert first.entry.deterministic > 1000  # the reference's
    return [board.report(number) for number in numbers]


def need_ratios(report, submission):
    """Fail unless the leaderboard's costs of a submission are those that were counted here."""
    assert report["flops"] == submission.costs.flops
    assert report["stored_bytes"] == submission.stored_bytes
    assert report["peak_activation_bytes"] == submission.costs.peak_activation_bytes
    assert report["score"][1] > 0


def need_quality(report, which, model, tolerance):
    """Fail unless a model is as good as the leaderboard says, on the samples that were hidden from it."""
    task = load_task(checks.TASK[which])
    split = task.hidden(report["seed"])
    assert report["quality"] == pytest.approx(task.quality(checks.run(model, split.inputs), split), abs=tolerance)


# Images


def trained_cnn():
    """A smaller sister of the reference, after 94 steps: it knows three of four images."""
    rng, images = np.random.default_rng(3), data.fashion_mnist("train")
    layers = [nn.Conv2d(1, 8, 3, padding=1, rng=rng), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2)]
    layers += [nn.Conv2d(8, 16, 3, padding=1, rng=rng), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2)]
    layers += [nn.Flatten(), nn.Linear(784, 32, rng=rng), nn.ReLU(), nn.Linear(32, 10, rng=rng)]
    return train(nn.Sequential(*layers), images, 3000, rng)


def train(model, images, count, rng, pruner=None):
    some = images.images[:count], images.labels[:count]
    fine_tune(model, some, pruner=pruner, epochs=1, batch_size=32, lr=5e-3, rng=rng, progress=False)
    return model


def test_a_cnn_is_trained_and_made_smaller_in_every_way_and_ranked(board, tmp_path):
    images, rng = data.fashion_mnist("train"), np.random.default_rng(4)
    model = trained_cnn()
    losses = {"trained": checks.loss("cnn", model)}
    assert losses["trained"] < 30

    folded = fused(model)
    checks.need_near(checks.outputs("cnn", folded), checks.outputs("cnn", model), 1e-4)
    small = factorize(prune_filters(folded, 0.25), 0.98)
    pruner = MagnitudePruner(0.6).prepare(small)
    train(small, images, 1500, rng, pruner)
    pruner.finalize()
    assert measure_sparsity(small).sparsity == pytest.approx(0.6, abs=0.001)
    losses["smaller"] = checks.loss("cnn", small)
    assert losses["smaller"] < losses["trained"] + 3
    assert checks.count("cnn", small).macs < 0.7 * checks.count("cnn", model).macs

    plan, sparse = Plan(small, (1, 28, 28)), to_sparse(small, SPARSE_FROM)
    whole = quantized(small)
    for other, tolerance in ((plan, 1e-4), (sparse, 1e-4), (whole, 0.1)):
        checks.need_near(checks.outputs("cnn", other), checks.outputs("cnn", small), tolerance)
    losses["in 8 bits"] = checks.loss("cnn", whole)
    assert losses["in 8 bits"] < losses["smaller"] + 1

    for each in (small, sparse, whole):
        checks.need_profile("cnn", each)
    files = [checks.need_submission("cnn", each, tmp_path, division="open") for each in (model, sparse, whole)]
    first, without_zeros, in_8_bits = files
    assert without_zeros.costs.flops < 0.6 * first.costs.flops
    assert in_8_bits.stored_bytes < 0.35 * first.stored_bytes
    in_earnest = quantized(study.load("adaptive_90"))  # the same, trained on for long enough
    files = [in_8_bits, checks.need_submission("cnn", in_earnest, tmp_path, division="open")]
    for each, submission, report in zip((whole, in_earnest), files, ranked(board, files), strict=True):
        need_ratios(report, submission)
        need_quality(report, "cnn", each, tolerance=0.4)  # one of 256 may turn


# Texts


def trained_gpt():
    """A GPT of two blocks after 60 steps: it knows which characters are frequent, and a few of their followers."""
    rng, tokens = np.random.default_rng(5), data.shakespeare("train").tokens.astype(np.int64)
    model = nn.GPT(len(data.text.VOCABULARY), 32, 2, 4, 256, rng=rng)
    train_gpt(model, tokens, 60, rng)
    return model


def train_gpt(model, tokens, steps, rng, after=lambda: None):
    optimizer = optim.AdamW(model.parameters(), 1e-2, weight_decay=0.0)
    model.train()
    for _ in range(steps):
        places = rng.integers(0, len(tokens) - 65, 16)[:, None] + np.arange(65)
        loss = cross_entropy(model(tokens[places[:, :-1]]), tokens[places[:, 1:]])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        after()
    model.eval()


def test_a_gpt_is_trained_and_made_smaller_in_every_way_and_ranked(board, tmp_path):
    tokens, rng = data.shakespeare("train").tokens.astype(np.int64), np.random.default_rng(6)
    model = trained_gpt()
    losses = {"trained": checks.loss("gpt", model)}
    assert losses["trained"] < 3.3  # all characters alike: 4.2

    small = copy.deepcopy(model)
    for block in small.blocks:
        block.mlp = factorize(block.mlp, 0.9)
    pruner = MagnitudePruner(0.4).prepare(small)
    train_gpt(small, tokens, 20, rng, pruner.step)
    pruner.finalize()
    assert measure_sparsity(small).sparsity == pytest.approx(0.4, abs=0.001)
    losses["smaller"] = checks.loss("gpt", small)
    assert losses["smaller"] < losses["trained"] + 0.1
    assert checks.count("gpt", small).macs < checks.count("gpt", model).macs

    whole = quantize_dynamic(small)
    losses["in 8 bits"] = checks.loss("gpt", whole)
    assert losses["in 8 bits"] < losses["smaller"] + 0.02

    ids, caches = checks.inputs("gpt", 2)[:, :64], QuantizedKVCache.of(whole, 2)
    with no_grad():
        steps = [whole(ids[:, :40], caches).data, *(whole(ids[:, i : i + 1], caches).data for i in range(40, 64))]
    checks.need_near(np.concatenate(steps, axis=1), checks.run(whole, ids), 0.05)
    assert caches.nbytes < 0.3 * nn.KVCache.of(whole, 2).nbytes

    for each in (small, whole):
        with FLOPCounter(each) as counter, ProfilerContext(each) as profile:
            checks.run(each, ids)
        assert counter.coverage == 1
        assert profile.events[0].name == "GPT"
    files = [
        checks.need_submission("gpt", model, tmp_path, division="open"),
        checks.need_submission("gpt", whole, tmp_path, division="open", cache="int8"),
    ]
    assert files[1].stored_bytes < 0.5 * files[0].stored_bytes
    assert files[1].costs.flops < files[0].costs.flops
    assert files[1].costs.peak_activation_bytes < files[0].costs.peak_activation_bytes
    program = Program(files[1].graph, files[1].arrays)
    written = whole.generate(ids[0, :20], 12, top_k=1, cache=QuantizedKVCache.of(whole))
    np.testing.assert_array_equal(program.generate(ids[:1, :20], 12)[0].argmax(axis=1), written[20:])
    in_earnest = quantize_dynamic(reference("gpt"))
    files = [files[1], checks.need_submission("gpt", in_earnest, tmp_path, division="open", cache="int8")]
    for each, submission, report in zip((whole, in_earnest), files, ranked(board, files), strict=True):
        need_ratios(report, submission)
        need_quality(report, "gpt", each, tolerance=0.01)
