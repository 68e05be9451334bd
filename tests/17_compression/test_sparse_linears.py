"""sparse_linears: a pruned model of any kind computes the same without the zeros of its linear layers."""

import numpy as np
import pytest

from tinytorch import nn, no_grad
from tinytorch.compression import BreakEven, MagnitudePruner, SparseLinear, sparse_linears

ALL = BreakEven(0.0, 0.0)


def pruned_gpt(sparsity=0.8, exclude=()):
    model = nn.GPT(11, 16, 2, 4, 12, np.random.default_rng(0), num_kv_heads=2)
    for parameter in model.parameters():  # biases, too, that are not zero
        parameter.data += np.random.default_rng(1).normal(0, 0.1, parameter.shape).astype(np.float32)
    return MagnitudePruner(sparsity, exclude=exclude).prepare(model).finalize()


def scores(model):
    with no_grad():
        return model(np.arange(10).reshape(2, 5)).data


def test_a_pruned_gpt_says_the_same_with_and_without_a_cache():
    model = pruned_gpt()
    found = sparse_linears(model, ALL)
    np.testing.assert_allclose(scores(found), scores(model), rtol=0, atol=1e-5)
    texts = [found.generate([1, 2], 9, top_k=1, use_cache=use_cache) for use_cache in (True, False)]
    np.testing.assert_array_equal(*texts)
    np.testing.assert_array_equal(texts[0], model.generate([1, 2], 9, top_k=1))


def test_linear_layers_of_enough_zeros_are_exchanged_and_nothing_else_is():
    kept = "blocks.1.mlp.0"
    model = pruned_gpt(exclude=[kept])
    found = dict(sparse_linears(model, BreakEven(0.01, 0.9)).named_modules())
    for path, module in model.named_modules():
        sparse = type(module) is nn.Linear and path != kept
        assert type(found[path]) is (SparseLinear if sparse else type(module))


def test_the_model_is_left_as_it_is_and_shares_no_memory():
    model = pruned_gpt()
    found = sparse_linears(model, BreakEven(0.8, 0.0))
    assert {SparseLinear, nn.Linear} <= {type(module) for module in found.modules()}
    before = scores(found)
    for parameter in model.parameters():
        parameter.data[:] = 0
    np.testing.assert_array_equal(scores(found), before)


def test_a_tied_head_stays_with_its_table():
    model = nn.GPT(11, 16, 1, 2, 12, np.random.default_rng(0))
    model.head.weight = model.token_embedding.weight
    found = sparse_linears(model, ALL)
    assert found.head.weight is found.token_embedding.weight
    assert isinstance(found.blocks[0].mlp[2], SparseLinear)


def test_what_cannot_be_sparse_is_refused():
    with pytest.raises(ValueError, match="nothing to make sparse: the Embedding has no linear layer"):
        sparse_linears(nn.Embedding(2, 2), ALL)
    model = pruned_gpt()
    model.blocks[1].attention.out_proj.weight.data[0, 0] = np.nan
    with pytest.raises(ValueError, match=r"at 'blocks.1.attention.out_proj': .* is NaN or infinite at 1 of"):
        sparse_linears(model, ALL)
