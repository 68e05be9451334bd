"""A GPT's step in one call without the zeros of its weights: what its layers compute one by one, in any mixture."""

import copy
import importlib

import numpy as np
import pytest

from tinytorch import backend, nn, no_grad
from tinytorch.compression import BreakEven, MagnitudePruner, SparseLinear, sparse_linears
from tinytorch.kernels.decoding import KEPT, Kept, decoder_step
from tinytorch.kernels.dot import dot_paths
from tinytorch.kernels.sparse import Product, Rows
from tinytorch.quantization import DynamicQuantizedLinear

coded = importlib.import_module("tests.18_caching.test_coded_decoding")
SIZES, far, step, layer_by_layer = coded.SIZES, coded.far, coded.step, coded.layer_by_layer


def drawn(sizes, seed, form):
    """Return arguments of a step; `form(rng)` says of each weight whether it is floats, codes, or kept."""

    def weight(rng, outputs, inputs, _is_head):
        found = form(rng)
        if found == "codes":
            return coded.codes(rng, outputs, inputs)
        matrix = coded.floats(rng, outputs, inputs)
        if found == "floats":
            return matrix
        matrix *= rng.random(matrix.shape) < rng.choice([0.0, 0.1, 0.5, 1.0])
        made = Rows.from_dense(matrix)
        return Kept(made.values, made.indices, made.indptr, Product(made))

    return coded.arguments_of(sizes, seed, weight)


def all_kept(rng):
    return "kept"


def some_kept(rng):
    return rng.choice(["kept", "floats"])


def any_form(rng):
    return rng.choice(["kept", "floats", "codes"])


def run(name, *arguments):
    given = drawn(*arguments)
    with backend(name):
        return decoder_step(*given), *given[3:5]


def difference(name, *arguments):
    return far(run(name, *arguments), run("numpy", *arguments))


@pytest.mark.parametrize("form", [all_kept, some_kept])
@pytest.mark.parametrize("sizes", SIZES)
def test_it_does_what_the_numpy_version_does(sizes, form):
    pytest.importorskip("numba")
    assert max(difference("numba", sizes, seed, form) for seed in range(9)) < 1e-4


@pytest.mark.parametrize("sizes", [SIZES[0], (2, 1, 3, 2, 4, 5, 6, 2, True)])
def test_the_loops_do_what_the_numpy_version_does(sizes):
    assert max(difference("naive", sizes, seed, some_kept) for seed in range(5)) < 1e-4


@pytest.mark.parametrize("sizes", SIZES[1:4])
def test_each_layer_of_each_block_may_have_a_form_of_its_own(sizes):
    """With codes among them, a digit may tip a sum over to the next code: not often, and not far."""
    pytest.importorskip("numba")
    differences = [difference("numba", sizes, seed, any_form) for seed in range(9)]
    assert max(differences) < 0.2
    assert np.median(differences) < 1e-4


def test_sequences_that_share_what_is_read_compute_what_each_does_alone():
    pytest.importorskip("numba")
    tokens, ids, weights, keys, values, heads, past, starts, eps = drawn((2, 2, 16, 7, 9, 40, 70, 2, True), 0, all_kept)
    with backend("numba"):
        alone = [
            decoder_step(tokens, ids[i], weights, keys[:, i].copy(), values[:, i].copy(), heads, past, starts[i], eps)
            for i in (slice(b, b + 1) for b in range(7))
        ]
        together = decoder_step(tokens, ids, weights, keys, values, heads, past, starts, eps)
    np.testing.assert_array_equal(together, np.concatenate(alone))


def test_weights_are_made_ready_once_and_a_copy_makes_its_own():
    pytest.importorskip("numba")
    weights = drawn(SIZES[2], 0, any_form)[2]
    path = dot_paths()[0]
    table, copied = weights.table(path), copy.deepcopy(weights)
    assert weights.table(path) is table
    assert not set(table[:, 0]) & set(copied.table(path)[:, 0])
    ready = {w.product.packed.ctypes.data for w in weights.weights() if isinstance(w, Kept) and w.product.packed.size}
    assert {address for address, form in table if form == KEPT} == ready


def test_without_an_instruction_for_it_zeros_are_multiplied(monkeypatch):
    kept = pytest.importorskip("tinytorch.kernels.compiled.kept")
    expected = run("numpy", SIZES[2], 0, all_kept)
    monkeypatch.setattr(kept, "CAN_PICK", False)
    assert far(run("numba", SIZES[2], 0, all_kept), expected) < 1e-4


# Models

ALL = BreakEven(0.0, 0.0)


def small():
    model = nn.GPT(7, 16, 2, 4, 9, rng=np.random.default_rng(0), num_kv_heads=2)
    for p in model.parameters():
        p.data += np.random.default_rng(1).normal(0, 0.2, p.shape).astype(np.float32)
    return model


def without_zeros(exclude=(), threshold=ALL):
    return sparse_linears(MagnitudePruner(0.7, exclude=exclude).prepare(small()).finalize(), threshold)


def with_some_dense():
    return without_zeros(["blocks.0.mlp.0", "blocks.1.attention.out_proj"], BreakEven(0.01, 0.9))


def tied():
    model = small()
    model.head.weight = model.token_embedding.weight
    return sparse_linears(MagnitudePruner(0.7, exclude=["head"]).prepare(model).finalize(), ALL)


def with_a_coded_head():
    model = without_zeros(["head"], BreakEven(0.01, 0.9))
    model.head = DynamicQuantizedLinear.from_float(model.head)
    return model


@pytest.mark.parametrize("make", [without_zeros, with_some_dense, tied, with_a_coded_head])
def test_one_operation_does_a_step_and_costs_what_its_layers_cost(make):
    model = make()
    assert any(isinstance(module, SparseLinear) for module in model.modules())
    (together, one), (apart, many) = step(model), layer_by_layer(model)
    assert list(one.by_operation()) == ["DecoderStep"]
    assert "DecoderStep" not in many.by_operation()
    np.testing.assert_allclose(together, apart, rtol=0, atol=0.1 if make is with_a_coded_head else 1e-5)
    assert (one.total.macs, one.total.flops) == (many.total.macs, many.total.flops)


def test_a_step_reads_what_is_stored():
    model, dense = without_zeros(), small()
    (_, found), (_, expected) = step(model), step(dense)
    saved = sum(m.weight.data.nbytes for m in dense.modules() if isinstance(m, nn.Linear))
    stored = sum(
        m.nbytes - (0 if m.bias is None else m.bias.nbytes) for m in model.modules() if isinstance(m, SparseLinear)
    )
    assert expected.total.bytes - found.total.bytes == saved - stored


class Other(SparseLinear):
    def forward(self, x):
        return super().forward(x) * 2.0


def other_layer(outputs=16, inputs=16):
    return SparseLinear.from_dense(nn.Linear(inputs, outputs, rng=np.random.default_rng(3)))


CHANGES = {
    "other values": lambda m: setattr(m.head, "values", -m.head.values),
    "a bias": lambda m: setattr(m.blocks[0].mlp[2], "bias", np.arange(16, dtype=np.float32)),
    "a float weight in place": lambda m: m.norm.weight.data.__imul__(3),
    "another layer": lambda m: setattr(m.blocks[1].attention, "out_proj", other_layer()),
    "a float layer": lambda m: setattr(
        m.blocks[1].attention, "out_proj", nn.Linear(16, 16, rng=np.random.default_rng(3))
    ),
    "a class of one's own": lambda m: setattr(m, "head", Other(m.head.rows)),
    "a forward of its own": lambda m: setattr(m.head, "forward", lambda x: x[:, :, :7]),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_was_changed_between_two_steps_counts(change):
    model = without_zeros()
    before, _ = step(model)
    change(model)
    after, _ = step(model)
    np.testing.assert_allclose(after, layer_by_layer(model)[0], rtol=0, atol=1e-5)
    assert np.abs(after - before).max() > 1e-3


def test_weights_are_not_made_ready_anew_when_something_else_changes():
    model = without_zeros()
    step(model)
    before = [m.for_step().product for m in model.modules() if isinstance(m, SparseLinear)]
    model.eval()
    nn.Linear(2, 3)
    step(model)
    after = [m.for_step().product for m in model.modules() if isinstance(m, SparseLinear)]
    assert all(a is b for a, b in zip(before, after, strict=True))


def test_weights_cannot_be_written_to_not_even_those_of_a_copy():
    for model in (without_zeros(), copy.deepcopy(without_zeros())):
        for array in (model.head.values, model.head.indices, model.blocks[0].mlp[0].bias):
            with pytest.raises(ValueError, match="read-only"):
                array[0] = 0


def test_a_copy_of_a_model_goes_by_its_own_weights():
    model = without_zeros()
    before, _ = step(model)
    copied = copy.deepcopy(model)
    step(copied)
    copied.head.values = 0 * copied.head.values
    np.testing.assert_array_equal(step(model)[0], before)
    assert not step(copied)[0].any()


@pytest.mark.parametrize("name", ["numpy", "numba"])
@pytest.mark.parametrize("strange", [np.nan, np.inf])
def test_strange_numbers_make_strange_scores_as_they_do_of_dense_layers(name, strange):
    if name == "numba":
        pytest.importorskip("numba")
    for model in (without_zeros(), small()):
        model.token_embedding.weight.data[3, 0] = strange
        with backend(name), np.errstate(invalid="ignore"):
            assert np.isnan(step(model)[0]).all()


def test_it_writes_the_same_text_as_the_dense_model():
    model, pruned = without_zeros(), MagnitudePruner(0.7).prepare(small()).finalize()
    with no_grad():
        np.testing.assert_array_equal(model.generate([1, 2], 7, top_k=1), pruned.generate([1, 2], 7, top_k=1))
