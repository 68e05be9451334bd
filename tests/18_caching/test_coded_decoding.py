"""A GPT's step in one call with weights in whole numbers: what its layers compute one by one, on every backend.

A sum whose last digit differs from backend to backend may be rounded to another code, so that scores differ by about a
hundredth where one is. Comparisons allow for that, and ask that there is none in most cases.
"""

import copy

import numpy as np
import pytest

from tinytorch import backend, nn, no_grad
from tinytorch.kernels.decoding import BlockWeights, Coded, DecoderWeights, decoder_step
from tinytorch.kernels.dot import dot_path, dot_paths
from tinytorch.kernels.dynamic import Product
from tinytorch.profiling import FLOPCounter
from tinytorch.quantization import DynamicQuantizedLinear, quantize_dynamic

# shared heads, group, depth, batch, past, width of the MLP, vocabulary, layers, whether sequences begin late
SIZES = [
    (1, 1, 1, 1, 0, 1, 1, 1, False),
    (4, 1, 32, 1, 7, 512, 68, 2, False),
    (2, 2, 16, 9, 40, 20, 70, 3, True),
    (3, 1, 5, 4, 1, 33, 11, 1, True),
    (1, 3, 7, 6, 12, 64, 65, 2, False),
    (2, 1, 8, 14, 3, 5, 130, 2, True),
]


def arguments_of(sizes, seed, weight):
    """Return arguments of a step; `weight(rng, outputs, inputs, is_head)` draws each weight of a linear layer."""
    shared, group, depth, batch, past, wide, vocab, layers, late = sizes
    rng = np.random.default_rng(seed)
    heads = shared * group
    width, rows = heads * depth, (heads + 2 * shared) * depth

    def numbers(*shape):
        return rng.normal(0, 0.5, shape).astype(np.float32)

    def linear(outputs, inputs):
        return weight(rng, outputs, inputs, False)

    blocks = tuple(
        BlockWeights(
            numbers(width) + 1, numbers(width), linear(rows, width), numbers(rows), linear(width, width),
            numbers(width), numbers(width) + 1, numbers(width), linear(wide, width), numbers(wide),
            linear(width, wide), numbers(width),
        )
        for _ in range(layers)
    )  # fmt: skip
    head = weight(rng, vocab, width, True)
    weights = DecoderWeights(blocks, numbers(past + 1, width), numbers(width) + 1, numbers(width), head)
    keys, values = rng.normal(0, 1, (2, layers, batch, shared, past + 2, depth)).astype(np.float32)
    starts = rng.integers(0, past + 1, batch) if late else np.zeros(batch, np.int64)
    return numbers(vocab, width), rng.integers(0, vocab, batch), weights, keys, values, heads, past, starts, 1e-5


def floats(rng, outputs, inputs):
    return rng.normal(0, 0.5, (outputs, inputs)).astype(np.float32) / np.float32(np.sqrt(inputs))


def codes(rng, outputs, inputs):
    whole, scale = rng.integers(-127, 128, (outputs, inputs), np.int8), np.full(outputs, 0.02 / np.sqrt(inputs))
    scale = scale.astype(np.float32)
    return Coded(whole, scale, Product(whole, scale))


def drawn(sizes, seed, coded=True, coded_head=True):
    def weight(rng, outputs, inputs, is_head):
        return (codes if (coded_head if is_head else coded) else floats)(rng, outputs, inputs)

    return arguments_of(sizes, seed, weight)


def far(ours, theirs):
    """Return by how much two steps differ: scores, keys and values."""
    return max(float(np.abs(a - b).max()) for a, b in zip(ours, theirs, strict=True))


def run(name, *arguments, **kinds):
    given = drawn(*arguments, **kinds)
    with backend(name):
        return decoder_step(*given), *given[3:5]


def need_the_same(name, sizes, seeds, **kinds):
    pytest.importorskip("numba")
    differences = [far(run(name, sizes, seed, **kinds), run("numpy", sizes, seed, **kinds)) for seed in seeds]
    assert max(differences) < 0.2
    assert np.median(differences) < 1e-4


@pytest.mark.parametrize("sizes", SIZES)
def test_it_does_what_the_numpy_version_does(sizes):
    need_the_same("numba", sizes, range(9))


@pytest.mark.parametrize("sizes", [SIZES[0], (2, 1, 3, 2, 4, 5, 6, 2, True)])
def test_the_loops_do_what_the_numpy_version_does(sizes):
    need_the_same("naive", sizes, range(9))


@pytest.mark.parametrize(("coded", "coded_head"), [(True, False), (False, True)])
def test_a_head_may_be_of_another_kind_than_the_blocks(coded, coded_head):
    need_the_same("numba", SIZES[2], range(5), coded=coded, coded_head=coded_head)


def test_every_instruction_gives_the_same_bits():
    pytest.importorskip("numba")
    found = []
    for path in (dot_paths()[0], dot_paths()[-1]):
        with dot_path(path):
            found.append(run("numba", SIZES[2], 0))
    for a, b in zip(*found, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_copy_of_weights_tells_where_it_lies_itself():
    pytest.importorskip("numba")
    given = drawn(SIZES[2], 0)
    path = dot_paths()[0]
    copied = copy.deepcopy(given[2])
    assert not set(given[2].table(path)[:, 0]) & set(copied.table(path)[:, 0])
    with backend("numba"):
        expected = decoder_step(*copy.deepcopy(given))
        np.testing.assert_array_equal(decoder_step(*given[:2], copied, *given[3:]), expected)


@pytest.mark.parametrize("name", ["numpy", "numba"])
@pytest.mark.parametrize("strange", [np.nan, np.inf])
def test_numbers_without_a_code_are_an_error_and_the_cache_stays_as_long_as_it_was(name, strange):
    if name == "numba":
        pytest.importorskip("numba")
    model = whole_gpt()
    cache = nn.KVCache.of(model)
    with backend(name), no_grad(), np.errstate(invalid="ignore"):
        model(np.array([[1, 2]]), cache)
        model.token_embedding.weight.data[3, 0] = strange
        with pytest.raises(ValueError, match=r"NaN or infinite.*have no code"):
            model(np.array([[3]]), cache)
    assert [layer.length for layer in cache] == [2, 2]


# Models


def small():
    model = nn.GPT(7, 16, 2, 4, 9, rng=np.random.default_rng(0), num_kv_heads=2)
    for p in model.parameters():
        p.data += np.random.default_rng(1).normal(0, 0.2, p.shape).astype(np.float32)
    return model


def whole_gpt():
    return quantize_dynamic(small())


def step(model):
    """Feed two positions at once, then a third; return its scores, and the operations that made them."""
    cache = nn.KVCache.of(model)
    with no_grad():
        model(np.array([[1, 2]]), cache)
        with FLOPCounter(model, strict=True) as counter:
            scores = model(np.array([[3]]), cache).data
    return scores, counter


def layer_by_layer(model):
    """The same, without the one operation for all."""
    model.norm.forward = type(model.norm).forward.__get__(model.norm)
    try:
        return step(model)
    finally:
        del model.norm.forward


def tied():
    model = small()
    model.head.weight = model.token_embedding.weight
    return quantize_dynamic(model)


def only_the_head():
    model = small().eval()
    model.head = DynamicQuantizedLinear.from_float(model.head)
    return model


@pytest.mark.parametrize("make", [whole_gpt, tied, only_the_head])
def test_one_operation_does_a_step_and_costs_what_its_layers_cost(make):
    model = make()
    (together, one), (apart, many) = step(model), layer_by_layer(model)
    assert list(one.by_operation()) == ["DecoderStep"]
    assert "DecoderStep" not in many.by_operation()
    np.testing.assert_allclose(together, apart, rtol=0, atol=0.1)
    assert (one.total.macs, one.total.flops) == (many.total.macs, many.total.flops)


class Other(DynamicQuantizedLinear):
    def forward(self, x):
        return super().forward(x) * 2.0


def other_layer():
    return nn.Linear(16, 16, rng=np.random.default_rng(3))


CHANGES = {
    "a weight in place": lambda m: m.head.weight.__imul__(-1),
    "scales in place": lambda m: m.blocks[0].mlp[0].weight_scale.__imul__(3),
    "a bias in place": lambda m: m.blocks[0].mlp[0].bias.__iadd__(3),
    "a float weight in place": lambda m: m.norm.weight.data.__imul__(3),
    "another bias": lambda m: setattr(m.blocks[0].mlp[2], "bias", np.arange(16, dtype=np.float32)),
    "another layer": lambda m: setattr(
        m.blocks[1].attention, "out_proj", DynamicQuantizedLinear.from_float(other_layer())
    ),
    "a float layer": lambda m: setattr(m.blocks[1].attention, "out_proj", other_layer()),
    "a class of one's own": lambda m: setattr(m, "head", Other(m.head.weight, m.head.weight_scale)),
    "a forward of its own": lambda m: setattr(m.head, "forward", lambda x: x[:, :, :7]),
    "another state": lambda m: m.load_state_dict(m.state_dict() | {"head.weight": -m.head.weight}),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_was_changed_between_two_steps_counts(change):
    model = whole_gpt()
    before, _ = step(model)
    change(model)
    after, _ = step(model)
    np.testing.assert_allclose(after, layer_by_layer(model)[0], rtol=0, atol=0.1)
    assert np.abs(after - before).max() > 0.2


def test_a_copy_of_a_model_goes_by_its_own_weights():
    model = whole_gpt()
    before, _ = step(model)
    copied = copy.deepcopy(model)
    step(copied)
    copied.head.weight[:] = 0
    np.testing.assert_array_equal(step(model)[0], before)
    assert not step(copied)[0].any()
