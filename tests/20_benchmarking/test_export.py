"""Models as submissions: the file computes what the model does, at the cost that the profiler counts."""

import numpy as np
import pytest

from tinytorch import Tensor, nn, no_grad, zoo
from tinytorch.benchmarks.tinymlperf.execution import Program
from tinytorch.benchmarks.tinymlperf.export import export
from tinytorch.benchmarks.tinymlperf.submission import Submission
from tinytorch.benchmarks.tinymlperf.tasks import load_task
from tinytorch.compression.low_rank import factorize
from tinytorch.compression.pruner import MagnitudePruner
from tinytorch.compression.sparse_layers import SparseConv2d, SparseLinear
from tinytorch.compression.sparse_model import to_sparse
from tinytorch.compression.sparse_or_dense import BreakEven
from tinytorch.compression.structured import prune_filters
from tinytorch.profiling.flops.counter import FLOPCounter
from tinytorch.quantization.quantizer import INT8Quantizer

IMAGES, SNEAKERS, TEXT = "image-classification", "anomaly-detection", "language-model"


def pruned() -> nn.Sequential:
    return MagnitudePruner(0.8).prepare(zoo.load("reference_cnn")).finalize().eval()


def quantized(model: nn.Module, task: str) -> nn.Module:
    samples = load_task(task).public().inputs[:64]
    return INT8Quantizer(unsupported="float").calibrate(model, samples).convert(model)


def pools_and_gelu() -> nn.Sequential:
    """A pooling that is no part of a convolution, and a layer that stays in floats."""
    rng = np.random.default_rng(0)
    layers = nn.Conv2d(1, 4, 3, rng=rng), nn.ReLU(), nn.MaxPool2d(3, 2), nn.AvgPool2d(2), nn.GELU(), nn.Flatten()
    return nn.Sequential(*layers, nn.Linear(4 * 6 * 6, 10, rng=rng)).eval()


def layers_without_zeros() -> nn.Sequential:
    kinds = {nn.Conv2d: SparseConv2d, nn.Linear: SparseLinear}
    layers = [kinds[type(x)].from_dense(x) if type(x) in kinds else x for x in pruned()]
    return nn.Sequential(*layers).eval()


MODELS = {
    "float32": (IMAGES, lambda: zoo.load("reference_cnn")),
    "fewer filters": (IMAGES, lambda: prune_filters(zoo.load("reference_cnn"), 0.5)),
    "low rank": (IMAGES, lambda: factorize(zoo.load("reference_cnn"), 0.9).eval()),
    "8 bits": (IMAGES, lambda: quantized(zoo.load("reference_cnn"), IMAGES)),
    "8 bits and others": (IMAGES, lambda: quantized(pools_and_gelu(), IMAGES)),
    "a sparse model": (IMAGES, lambda: to_sparse(pruned(), BreakEven(0.5, 0.5))),
    "sparse and dense layers": (IMAGES, lambda: to_sparse(pruned(), BreakEven(0.9, 0.7))),
    "sparse layers": (IMAGES, layers_without_zeros),
    "autoencoder": (SNEAKERS, lambda: zoo.load("anomaly_autoencoder")),
    "autoencoder, 8 bits": (SNEAKERS, lambda: quantized(zoo.load("anomaly_autoencoder"), SNEAKERS)),
    "autoencoder, low rank": (SNEAKERS, lambda: factorize(zoo.load("anomaly_autoencoder"), 0.9).eval()),
}


@pytest.fixture(scope="module", params=MODELS)
def exported(request):
    task, make = MODELS[request.param]
    model = make()
    return task, model, export(model, task)


def test_a_file_computes_what_the_model_does(exported, tmp_path):
    task, model, submission = exported
    again = Submission.open(submission.save(tmp_path / "model.safetensors"))
    x = load_task(task).public().inputs[:5]
    with no_grad():
        expected = model(Tensor(x)).data
    (found,) = Program(again.graph, again.arrays).run({"x": x})
    np.testing.assert_allclose(found, expected.reshape(found.shape), rtol=0, atol=2e-5)
    assert (again.graph, again.content_hash) == (submission.graph, submission.content_hash)
    assert again.stored_bytes == (tmp_path / "model.safetensors").stat().st_size


@pytest.mark.parametrize("name", ["float32", "fewer filters", "low rank", "autoencoder", "autoencoder, low rank"])
def test_operations_are_those_that_the_profiler_counts(name):
    task, make = MODELS[name]
    model = make()
    fused = nn.Sequential(*_fused(model))
    with FLOPCounter(fused) as counter, no_grad():
        fused(Tensor(load_task(task).public().inputs[:1]))
    assert export(model, task).costs.flops == counter.total.flops


def _fused(model: nn.Sequential) -> list[nn.Module]:
    from tinytorch.nn.fuse import fuse_conv_bn

    layers: list[nn.Module] = []
    for layer in model:
        if isinstance(layer, nn.BatchNorm2d):
            layers[-1] = fuse_conv_bn(layers[-1], layer)
        else:
            layers.append(layer)
    return layers


def test_costs_of_the_reference_by_hand():
    """At the peak live what the second convolution reads, and what it writes behind its pooling."""
    found = export(zoo.load("reference_cnn"), IMAGES).costs
    assert found.peak_activation_bytes == 4 * (16 * 14 * 14 + 32 * 7 * 7)
    macs = 28 * 28 * 16 * 9 + 14 * 14 * 32 * 16 * 9 + 7 * 7 * 64 * 32 * 9 + 576 * 128 + 128 * 10
    assert 2 * macs < found.flops < 2.1 * macs


def test_smaller_models_cost_less():
    dense, sparse, small, codes = (
        export(make(), IMAGES)
        for _, make in (MODELS[k] for k in ("float32", "a sparse model", "fewer filters", "8 bits"))
    )
    assert sparse.costs.flops < 0.35 * dense.costs.flops
    assert small.costs.flops < 0.45 * dense.costs.flops
    assert codes.stored_bytes < 0.35 * dense.stored_bytes
    assert sparse.stored_bytes < 0.5 * dense.stored_bytes
    assert 4 * codes.costs.peak_activation_bytes == dense.costs.peak_activation_bytes


# Language


def gpt(kv_heads: int | None = None) -> nn.GPT:
    if kv_heads is None:
        return zoo.load("char_gpt")
    rng = np.random.default_rng(0)
    return nn.GPT(68, 16, 2, 4, 256, rng=rng, num_kv_heads=kv_heads).eval()


def vocabulary() -> int:
    return load_task(TEXT).output.shape[2]


@pytest.mark.parametrize("cache", ["none", "float32", "int8"])
@pytest.mark.parametrize("kv_heads", [None, 2])
def test_a_gpt_in_a_file_says_what_it_says_outside(tmp_path, cache, kv_heads):
    model = (
        gpt() if kv_heads is None else nn.GPT(vocabulary(), 16, 2, 4, 256, np.random.default_rng(0), kv_heads).eval()
    )
    submission = Submission.open(export(model, TEXT, cache=cache).save(tmp_path / "gpt.safetensors"))
    program = Program(submission.graph, submission.arrays)
    ids = load_task(TEXT).public().inputs[:2, :40]
    with no_grad():
        expected = model(ids).data
    np.testing.assert_allclose(program.run({"ids": ids})[0], expected, rtol=0, atol=5e-5)
    program.reset(2)
    steps = [program.step(ids[:, :30]), *(program.step(ids[:, i : i + 1]) for i in range(30, 40))]
    loose = 0.5 if cache == "int8" else 5e-5
    np.testing.assert_allclose(np.concatenate(steps, axis=1), expected, rtol=0, atol=loose)


def test_a_whole_gpt_is_run_by_the_one_of_this_package():
    program = Program(*(lambda s: (s.graph, s.arrays))(export(gpt(), TEXT)))
    assert isinstance(program.text.gpt, nn.GPT)


def test_a_gpt_with_thin_layers_is_done_node_by_node_and_remembers_too():
    model = nn.GPT(vocabulary(), 16, 2, 4, 256, np.random.default_rng(0)).eval()
    for block in model.blocks:
        thin = nn.Sequential(nn.Linear(16, 3, bias=False), nn.Linear(3, 64))
        block.mlp = nn.Sequential(thin, nn.GELU(), SparseLinear.from_dense(block.mlp[2]))
    submission = export(model, TEXT)
    program = Program(submission.graph, submission.arrays)
    assert program.text.gpt is None
    ids = load_task(TEXT).public().inputs[:2, :12]
    with no_grad():
        expected = model(ids).data
    np.testing.assert_allclose(program.run({"ids": ids})[0], expected, rtol=0, atol=1e-5)
    program.reset(2)
    steps = [program.step(ids[:, i : i + 1]) for i in range(12)]
    np.testing.assert_allclose(np.concatenate(steps, axis=1), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("cache", ["none", "float32", "int8", "window"])
def test_generated_scores_are_those_of_the_text_that_they_make(cache):
    submission = export(gpt(), TEXT, cache=cache, window=32)
    program = Program(submission.graph, submission.arrays)
    ids = load_task(TEXT).public().inputs[:2, :20]
    scores = program.generate(ids, 6)
    text = np.concatenate([ids, scores.argmax(axis=2)[:, :-1]], axis=1)
    whole = program.run({"ids": text})[0][:, 19:]
    np.testing.assert_allclose(scores, whole, rtol=0, atol=0.3 if cache == "int8" else 1e-4)


def test_memory_of_attention_counts_as_activation():
    bytes_of = {
        cache: export(gpt(), TEXT, cache=cache, window=60, sinks=4).costs.peak_activation_bytes
        for cache in ("none", "float32", "int8", "window")
    }
    assert bytes_of["float32"] - bytes_of["none"] == nn.KVCache.of(gpt()).nbytes
    assert bytes_of["int8"] - bytes_of["none"] == 270336  # see QuantizedKVCache
    assert bytes_of["window"] - bytes_of["none"] == 262144  # see WindowKVCache


def test_operations_of_a_text_are_those_that_the_profiler_counts():
    model, ids = gpt(), load_task(TEXT).public().inputs[:1]
    with FLOPCounter(model) as counter, no_grad():
        model(ids)
    assert export(model, TEXT).costs.flops == counter.total.flops


# What has no form


class Strange(nn.Module):
    pass


def test_a_layer_without_an_operation_is_named_with_its_place():
    model = zoo.load("reference_cnn")
    with pytest.raises(TypeError, match=r"Strange.*'1'"):
        export(nn.Sequential(model[0], Strange()), IMAGES)


def test_a_model_of_another_task_is_refused():
    from tinytorch.benchmarks.tinymlperf.rejection import Rejected

    with pytest.raises(Rejected, match=r"wrong-task.*\(1, 784\)"):
        export(zoo.load("reference_cnn"), SNEAKERS)
