"""quantize_dynamic: linear layers at any depth of any model are exchanged, and the model says nearly the same.

A sum whose last digit differs, as it may between a text that is read at once and one that is read with a cache, can be
rounded to another code, and scores then differ by about a hundredth.
"""

import copy
import importlib
import pickle
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from tinytorch import Tensor, backend, data, nn, no_grad, zoo
from tinytorch.quantization import DynamicQuantizedLinear, INT8Quantizer, QParams, QuantizedLinear, quantize_dynamic
from tinytorch.zoo.evaluation import nats_per_token

rows = importlib.import_module("tests.16_quantization.rounded_rows")
linear, normal, defined, same_bits = rows.linear, rows.normal, rows.defined, rows.same_bits


def mlp(seed=0):
    inner = nn.Sequential(linear(32, 16, seed=seed), nn.Dropout(0.5))
    return nn.Sequential(linear(40, 32, seed=seed + 1), nn.GELU(), inner, linear(16, 5, False, seed + 2))


def small_gpt(seed=0):
    return nn.GPT(11, 16, 2, 4, 12, np.random.default_rng(seed), num_kv_heads=2)


def output(model, x=None):
    with no_grad():
        return model(Tensor(normal(3, 40)) if x is None else x).data


def test_linear_layers_at_any_depth_are_exchanged_and_nothing_else_is():
    model = small_gpt()
    found = dict(quantize_dynamic(model).named_modules())
    for path, module in model.named_modules():
        assert type(found[path]) is (DynamicQuantizedLinear if type(module) is nn.Linear else type(module))
    assert sum(isinstance(module, DynamicQuantizedLinear) for module in found.values()) == 4 * 2 + 1
    assert {path for path, _ in quantize_dynamic(model).named_parameters()} == {
        path for path, _ in model.named_parameters() if "norm" in path or "embedding" in path
    }


@pytest.mark.parametrize("model", [linear(40, 3), mlp(), nn.TransformerBlock(40, 2, rng=np.random.default_rng(0))])
def test_any_model_will_do_and_the_copy_is_in_evaluation(model):
    x = Tensor(normal(1, 3, 40))
    found = quantize_dynamic(model)
    assert not any(module.training for module in found.modules())
    model.eval()
    np.testing.assert_allclose(output(found, x), output(model, x), rtol=0, atol=0.1)


def test_the_model_is_left_as_it_is_and_shares_no_memory():
    model = mlp()
    before, kinds = output(model.eval()), [type(module) for module in model.modules()]
    found = quantize_dynamic(model)
    expected = output(found)
    same_bits(output(model), before)
    assert [type(module) for module in model.modules()] == kinds
    for parameter in model.parameters():
        parameter.data[:] = 0
    same_bits(output(found), expected)


def test_a_head_that_is_the_table_of_an_embedding_stays_so():
    model = small_gpt()
    model.head.weight = model.token_embedding.weight
    found = quantize_dynamic(model)
    assert type(found.head) is nn.Linear
    assert found.head.weight is found.token_embedding.weight
    assert found.head.weight is not model.head.weight
    assert isinstance(found.blocks[1].mlp[0], DynamicQuantizedLinear)


def test_a_layer_that_is_used_twice_is_one_layer_afterwards():
    layer = linear(40, 40)
    found = quantize_dynamic(nn.Sequential(layer, nn.GELU(), nn.Sequential(layer)))
    assert found[0] is found[2][0]


class Own(nn.Linear):
    pass


def test_what_cannot_be_quantized_is_refused_in_a_sentence():
    for nothing in (nn.Sequential(nn.ReLU()), Own(2, 2), nn.Embedding(2, 2)):
        with pytest.raises(ValueError, match=r"^this \w+ has no linear layer that could be quantized$"):
            quantize_dynamic(nothing)
    dense = nn.Sequential(linear(4, 3))
    whole = INT8Quantizer().calibrate(dense, normal(8, 4), progress=False).convert(dense)
    for model in (
        quantize_dynamic(mlp()),
        nn.Sequential(quantize_dynamic(linear()), linear()),
        nn.Sequential(linear(), QuantizedLinear.from_float(linear(), QParams(0.1, 0))),
        whole,
    ):
        with pytest.raises(ValueError, match="in whole numbers already: give the float model"):
            quantize_dynamic(model)


def test_a_weight_without_a_code_is_named_with_its_place():
    dense = linear()
    dense.weight.data[3, 1] = np.inf
    with pytest.raises(ValueError, match=r"Linear\(.*at '1.0': x is NaN or infinite at"):
        quantize_dynamic(nn.Sequential(nn.ReLU(), nn.Sequential(dense)))


@pytest.mark.parametrize("name", ["numpy", "numba"])
def test_weights_that_are_loaded_or_written_are_those_that_are_used(name):
    if name == "numba":
        pytest.importorskip("numba")
    a, b = (quantize_dynamic(mlp(seed)) for seed in (0, 1))
    with backend(name):
        before, other = output(a), output(b)
        assert not np.array_equal(before, other)
        a.load_state_dict(b.state_dict())
        same_bits(output(a), other)
        layer, x = a[0], normal(3, 40)
        for name, factor in (("weight", -1), ("weight_scale", 3), ("bias", 2)):
            array = getattr(layer, name)
            before = layer(Tensor(x)).data
            getattr(layer, name)[:] = factor * array
            found = layer(Tensor(x)).data
            assert not np.array_equal(found, before)
            same_bits(found, defined(layer, x))


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_model_that_has_run_can_be_copied(duplicate):
    model = quantize_dynamic(mlp())
    before = output(model)
    again = duplicate(model)
    same_bits(output(again), before)
    again[0].weight[:] = 0
    same_bits(output(model), before)


# The language model


@pytest.fixture(scope="module")
def gpt():
    return zoo.load("char_gpt")


def test_the_language_model_loses_next_to_nothing_in_a_quarter_of_the_bytes(gpt):
    text = data.shakespeare("held-out")
    part = text._replace(tokens=text.tokens[:40_000])
    whole = quantize_dynamic(gpt)
    assert nats_per_token(whole, part) - nats_per_token(gpt, part) <= 0.01
    layers = [m for m in gpt.modules() if type(m) is nn.Linear]
    floats = sum(p.data.nbytes for layer in layers for p in (layer.weight, layer.bias) if p is not None)
    codes = sum(m.nbytes for m in whole.modules() if isinstance(m, DynamicQuantizedLinear))
    assert 0.25 < codes / floats < 0.27


@pytest.mark.parametrize("prompt", [[[1, 5, 9]], [[1, 5, 9], [3, 3, 3]]])
def test_what_it_generates_with_a_cache_it_would_without(gpt, prompt):
    """Each token is the best one to the model without the cache, too, or not to be told from it: see above."""
    whole = quantize_dynamic(gpt)
    cache = nn.KVCache.of(whole, len(prompt))
    text = whole.generate(prompt, 60, top_k=1, cache=cache)
    assert cache.length == 62
    scores = output(whole, text[:, :-1])[:, 2:]
    taken = np.take_along_axis(scores, text[:, 3:, None], axis=2)[..., 0]
    behind = scores.max(axis=2) - taken
    assert behind.max() < 0.2
    assert (behind == 0).mean() > 0.9
    np.testing.assert_array_equal(whole.generate(prompt, 60, top_k=1), text)


def test_a_step_behind_a_cache_gives_the_scores_of_the_whole_text():
    whole, ids = quantize_dynamic(small_gpt()), np.random.default_rng(0).integers(0, 11, (3, 12))
    cache = nn.KVCache.of(whole, 3)
    with no_grad():
        steps = [whole(ids[:, i : i + 1], cache).data for i in range(12)]
        np.testing.assert_allclose(np.concatenate(steps, axis=1), whole(ids).data, rtol=0, atol=0.1)


def test_it_is_quantized_and_run_without_numba(gpt, tmp_path):
    ids = np.random.default_rng(0).integers(0, gpt.vocab_size, (2, 50))
    np.save(tmp_path / "ids.npy", ids)
    with backend("numpy"):
        np.save(tmp_path / "scores.npy", output(quantize_dynamic(gpt), ids))
    program = f"""
        import sys
        sys.modules["numba"] = sys.modules["llvmlite"] = None
        import warnings
        warnings.simplefilter("ignore", UserWarning)  # that it computes with NumPy
        import numpy as np
        from tinytorch import no_grad, zoo
        from tinytorch.quantization import quantize_dynamic
        ids, expected = (np.load(r"{tmp_path}/" + name) for name in ("ids.npy", "scores.npy"))
        with no_grad():
            np.testing.assert_array_equal(quantize_dynamic(zoo.load("char_gpt"))(ids).data, expected)
    """
    run = [sys.executable, "-c", textwrap.dedent(program)]
    done = subprocess.run(run, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
