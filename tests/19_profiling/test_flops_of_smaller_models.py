"""Models in whole numbers and models without zeros count like the layers that they were made of."""

import numpy as np
import pytest

from tinytorch import Function, Tensor, backend, nn, no_grad, zoo
from tinytorch.acceleration import Plan
from tinytorch.benchmarks.tinymlperf.export import export
from tinytorch.compression import BreakEven, MagnitudePruner, SparseConv2d, SparseLinear, to_sparse
from tinytorch.profiling import FLOPCounter, MemoryProfiler, ProfilerContext
from tinytorch.profiling.flops.count import Count
from tinytorch.quantization import (
    INT8Quantizer,
    QParams,
    QuantizedConv2d,
    QuantizedLinear,
    QuantizedModel,
    QuantizedPool2d,
    QuantizedTensor,
)

RNG = np.random.default_rng(0)
IMAGES = RNG.random((20, 1, 28, 28), np.float32)
MEANING = QParams(0.02, 3)
ALWAYS, NEVER = BreakEven(0.0, 0.0), BreakEven(1.1, 1.1)
TASKS = {"reference_cnn": "image-classification", "anomaly_autoencoder": "anomaly-detection"}


def counted(model, x, grad=False):
    """Count one call; strict, so that nothing goes uncounted."""
    with FLOPCounter(model, strict=True) as counter:
        y = model(x)
        if grad:
            y.backward(np.ones(y.shape, np.float32))
    assert counter.coverage == 1
    assert counter.total.masked == 0
    return counter


def codes(*shape):
    return QuantizedTensor(RNG.integers(0, 256, shape, np.uint8), MEANING)


def quantized(name):
    model = zoo.load(name)
    seen = IMAGES if name == "reference_cnn" else IMAGES.reshape(20, 784)
    return INT8Quantizer().calibrate(model, seen, progress=False).convert(model), seen


def pruned(layer, sparsity=0.75):
    MagnitudePruner(sparsity).prepare(layer).finalize()
    return layer.eval()


# Whole numbers: for each number that comes in 5 operations, for each code that meets weights 1, for each sum 2 MACs and
# 2 of its bias and multiplier, and 4 more to become a code


def conv_layer(pool=2):
    conv = nn.Conv2d(3, 5, 3, padding=1, rng=RNG)
    return QuantizedConv2d.from_float(conv, MEANING, MEANING, relu=True, pool=pool)


def test_a_convolution_of_codes_by_hand():
    """Images of 9 x 7, of which pooling leaves 4 x 3: what it drops is not computed."""
    sums = 2 * 5 * 8 * 6
    macs = sums * 3 * 9
    moved = 2 * 3 * 9 * 7 + (5 * 27 + 5 * 4 + 5 * 4) + 2 * 5 * 4 * 3
    flops = 2 * macs + 2 * 3 * 9 * 7 + 6 * sums + sums
    assert counted(conv_layer(), codes(2, 3, 9, 7)).total == Count(macs, flops, moved)


@pytest.mark.parametrize("ends_in_codes", [True, False])
def test_a_linear_layer_of_codes_by_hand(ends_in_codes):
    layer = QuantizedLinear.from_float(nn.Linear(6, 4, rng=RNG), MEANING, MEANING if ends_in_codes else None)
    sums = 3 * 4
    moved = 3 * 6 + (4 * 6 + 4 * 4 + 4 * 4) + sums * (1 if ends_in_codes else 4)
    flops = 2 * sums * 6 + 3 * 6 + sums * (6 if ends_in_codes else 2)
    assert counted(layer, codes(3, 6)).total == Count(sums * 6, flops, moved)


@pytest.mark.parametrize(("mean", "each"), [(False, 9), (True, 9 + 2)])
def test_pooling_of_codes_by_hand(mean, each):
    found = counted(QuantizedPool2d(3, 2, mean, MEANING), codes(2, 3, 7, 5)).total
    assert found == Count(0, 2 * 3 * 3 * 2 * each, 2 * 3 * 7 * 5 + 2 * 3 * 3 * 2)


def test_a_model_counts_the_sum_of_its_layers_and_the_rounding_of_what_comes_in():
    model, x = quantized("reference_cnn")
    flops = macs = 0
    seen = QuantizedTensor.of(x, model.layers[0].input_qparams)
    for layer in model.layers:
        if isinstance(layer, QuantizedLinear):
            seen = QuantizedTensor(seen.codes.reshape(len(x), -1), seen.qparams)
        work = counted(layer, seen).total
        flops, macs, seen = flops + work.flops, macs + work.macs, layer(seen)
    found = counted(model, Tensor(x))
    assert (found.total.macs, found.total.flops) == (macs, flops + 5 * x.size)
    weights = sum(layer.weight.nbytes + layer.bias.nbytes + layer.weight_scale.nbytes for layer in model.layers)
    assert found.total.bytes == x.nbytes + weights + seen.nbytes
    assert found.by_module()[""] == found.total == found.forward
    assert found.by_operation().keys() == {"IntegerNetwork"}


LEFT_OUT = {  # codes that meet weights, and sums that become codes, of one image
    "reference_cnn": (784 + 16 * 14**2 + 32 * 7**2 + 576 + 128, 16 * 28**2 + 32 * 14**2 + 64 * 6**2 + 128),
    "anomaly_autoencoder": (784 + 128 + 16 + 128, 128 + 16 + 128),
}


@pytest.mark.parametrize("name", LEFT_OUT)
def test_the_competition_counts_the_same_but_for_saturation_rounding_and_zero_points(name):
    model, x = quantized(name)
    taken, coded = LEFT_OUT[name]
    found = counted(model, Tensor(x[:1])).total.flops
    assert found - export(model, TASKS[name]).costs.flops == 2 * 784 + taken + 4 * coded


def test_layers_that_were_left_in_float_count_beside_those_of_codes():
    """Where codes become numbers in between, each takes 4 operations, and each is rounded again."""
    first, last = conv_layer(), QuantizedLinear.from_float(nn.Linear(60, 4, rng=RNG), MEANING)
    model, x = QuantizedModel([first, nn.GELU(), nn.Flatten(), last]), RNG.random((2, 3, 9, 7), np.float32)
    parts = [
        counted(first, codes(2, 3, 9, 7)),
        counted(nn.GELU(), Tensor(np.ones((2, 5, 4, 3), np.float32))),
        counted(last, codes(2, 60)),
    ]
    flops = sum(part.total.flops for part in parts) + 5 * x.size + (4 + 5) * 2 * 60
    found = counted(model, Tensor(x))
    assert found.total.flops == flops
    assert found.total.macs == sum(part.total.macs for part in parts)
    assert [found.by_operation()[name].flops for name in ("GELU", "Reshape")] == [parts[1].total.flops, 0]


# Zeros: what is stored counts, and nothing else


@pytest.mark.parametrize("bias", [True, False])
def test_a_sparse_layer_counts_its_weights_and_reads_them_with_their_places(bias):
    dense = pruned(nn.Linear(40, 24, bias, RNG))
    layer, x = SparseLinear.from_dense(dense), Tensor(np.ones((3, 5, 40), np.float32), requires_grad=True)
    kept, rows = len(layer.values), 3 * 5
    assert kept == np.count_nonzero(dense.weight.data) == 240
    found = counted(layer, x, grad=True)
    stored = 240 * (4 + 4) + 25 * 4
    moved = x.nbytes + stored + bias * 24 * 4 + 4 * rows * 24
    assert found.forward == Count(rows * kept, 2 * rows * kept + bias * rows * 24, moved)
    assert found.backward == Count(rows * kept, 2 * rows * kept, 4 * rows * 24 + stored + x.nbytes)


def test_a_sparse_convolution_counts_its_weights_for_each_window():
    dense = pruned(nn.Conv2d(5, 8, 3, 2, 1, rng=RNG))
    layer, x = SparseConv2d.from_dense(dense), Tensor(np.ones((2, 5, 9, 7), np.float32), requires_grad=True)
    kept, windows = np.count_nonzero(dense.weight.data), 2 * 5 * 4
    found = counted(layer, x, grad=True)
    stored = kept * (4 + 4) + 9 * 4
    moved = x.nbytes + stored + 8 * 4 + 4 * windows * 8
    assert found.forward == Count(windows * kept, 2 * windows * kept + windows * 8, moved)
    assert found.backward == Count(windows * kept, 2 * windows * kept, 4 * windows * 8 + stored + x.nbytes)


@pytest.mark.parametrize(("kind", "dense", "shape"), [
    (SparseLinear, nn.Linear(7, 5, rng=RNG), (3, 7)),
    (SparseConv2d, nn.Conv2d(2, 3, 3, 2, 1, rng=RNG), (2, 2, 9, 8)),
])  # fmt: skip
def test_without_a_zero_a_sparse_layer_computes_as_much_as_the_dense_one(kind, dense, shape):
    x = Tensor(np.ones(shape, np.float32))
    found, expected = (counted(layer, x).total for layer in (kind.from_dense(dense), dense))
    assert (found.macs, found.flops) == (expected.macs, expected.flops)
    assert found.bytes - expected.bytes == 4 * dense.weight.data.size + 4 * (len(dense.weight.data) + 1)


def small_cnn():
    layers = nn.Conv2d(1, 4, 3, padding=1, rng=RNG), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 6, 3, bias=False, rng=RNG)
    return pruned(
        nn.Sequential(*layers, nn.AvgPool2d(2), nn.Flatten(), nn.Linear(216, 9, rng=RNG), nn.ReLU()), sparsity=0.6
    )


def kept(model):
    return [int(np.count_nonzero(layer.weight.data)) for layer in model if isinstance(layer, nn.Conv2d | nn.Linear)]


def test_a_model_without_zeros_by_hand():
    dense, x = small_cnn(), Tensor(IMAGES[:2])
    first, second, last = kept(dense)
    model = to_sparse(dense, ALWAYS)
    macs = 2 * (first * 28**2 + second * 12**2 + last)
    others = 4 * 28**2 * 3 + 6 * 12**2 * 2 + 6 * 6**2 + 9 * 2  # bias, ReLU, largest; bias, sum; mean; bias, ReLU
    found = counted(model, x)
    assert found.total == Count(macs, 2 * macs + 2 * others, x.nbytes + model.nbytes + 4 * 2 * 9)
    assert found.by_operation().keys() == {"SparseNetwork"}


def test_a_layer_that_keeps_its_zeros_multiplies_and_reads_them():
    dense, x = small_cnn(), Tensor(IMAGES[:2])
    model = to_sparse(dense, NEVER)
    found = counted(model, x).total
    assert found.macs == counted(dense, x).total.macs
    assert found.bytes == x.nbytes + model.nbytes + 4 * 2 * 9


@pytest.mark.parametrize("threshold", [ALWAYS, NEVER, BreakEven(0.9, 0.7)])
def test_the_competition_counts_the_same_where_pooling_drops_nothing(threshold):
    """In a graph pooling is an operation of its own: the convolution before it computes all."""
    model = to_sparse(pruned(zoo.load("reference_cnn"), 0.8), threshold)
    convolution = next(part.sparse for part in model.parts if part.sparse and part.sparse.rows.columns == 288)
    weights = convolution.rows.size if convolution.dense else len(convolution.rows.values)
    dropped = (7 * 7 - 6 * 6) * (2 * weights + 2 * 64)
    found = counted(model, Tensor(IMAGES[:1])).total.flops
    assert export(model, TASKS["reference_cnn"]).costs.flops - found == dropped


def test_layers_that_cannot_be_sparse_count_as_they_are():
    """A sum of what each costs alone."""
    dense = pruned(nn.Sequential(nn.Linear(20, 12, rng=RNG), nn.GELU(), nn.Linear(12, 5, rng=RNG)))
    x = Tensor(np.ones((3, 20), np.float32))
    model, hidden = to_sparse(dense, ALWAYS), Tensor(np.ones((3, 12), np.float32))
    parts = [(SparseLinear.from_dense(dense[0]), x), (dense[1], hidden), (SparseLinear.from_dense(dense[2]), hidden)]
    assert counted(model, x).total == sum((counted(*part).total for part in parts), Count())


# Any of them


def models():
    dense = small_cnn()
    last = QuantizedLinear.from_float(nn.Linear(60, 4, rng=RNG), MEANING)
    yield "int8", QuantizedModel([conv_layer(), last]), RNG.random((2, 3, 9, 7), np.float32)
    yield "sparse", to_sparse(dense, ALWAYS), RNG.random((2, 1, 28, 28), np.float32)
    yield "sparse layer", SparseLinear.from_dense(pruned(nn.Linear(9, 8, rng=RNG))), np.ones((2, 9), np.float32)


MODELS = {name: (model, x) for name, model, x in models()}


def test_a_model_of_several_kinds_counts_the_sum():
    class All(nn.Module):
        def __init__(self):
            super().__init__()
            self.parts = [model for model, _ in MODELS.values()]

        def forward(self, xs):
            return [part(x) for part, x in zip(self.parts, xs, strict=True)]

    xs = [Tensor(x) for _, x in MODELS.values()]
    parts = [counted(model, x).total for (model, _), x in zip(MODELS.values(), xs, strict=True)]
    found = counted(All(), xs)
    assert found.total == sum(parts, Count())
    assert [found.by_module()[f"parts.{i}"] for i in range(len(parts))] == parts


@pytest.mark.parametrize("name", MODELS)
def test_who_is_watched_computes_the_same_and_gets_no_gradient(name):
    model, x = MODELS[name]
    with no_grad():
        alone = model(Tensor(x))
        with FLOPCounter() as counter, ProfilerContext(model) as profile:
            watched = model(Tensor(x))
            assert Function.watched
    assert not Function.watched
    np.testing.assert_array_equal(watched.data, alone.data)
    assert [e.name for e in profile.events if e.kind == "forward"] == list(counter.by_operation())
    if name != "sparse layer":
        with FLOPCounter():
            assert not model(Tensor(x, requires_grad=True)).requires_grad


def test_weights_are_no_inputs_to_the_memory_profiler():
    for name in ("int8", "sparse"):
        model, x = MODELS[name]
        with MemoryProfiler(model) as memory:
            model(Tensor(x))
        assert memory.peak["inputs"] == x.nbytes
        assert memory.peak["buffers"] >= (model.nbytes if name == "sparse" else 5 * 27 + 4 * 60)


@pytest.mark.parametrize("name", MODELS)
def test_the_backend_changes_nothing(name):
    model, x = MODELS[name]
    found = []
    for each in ("naive", "numpy"):
        with backend(each):
            found.append(counted(model, Tensor(x)).total)
    assert found[0] == found[1]
    assert found[0].flops > 0


def test_a_plan_is_not_seen_and_the_table_says_so():
    plan = Plan(nn.Sequential(nn.Linear(4, 3, rng=RNG)), (4,))
    with FLOPCounter(strict=True) as counter:
        plan(np.ones((2, 4), np.float32))
    assert counter.total == Count()
    assert "such as a Plan" in str(counter)
