"""Every ordered pair of optimisations, and whole chains: they combine as predicted, or say in one sentence why not."""

import copy
import itertools
from functools import cache

import numpy as np
import pytest

from tests.integration import checks, predictions
from tests.integration.optimisations import (
    CNN,
    ENERGY,
    FILTERS,
    GPT,
    NOT_FOR_A_CNN,
    NOT_FOR_A_GPT,
    TEXT_ENERGY,
    kind,
    pairs,
    reference,
)
from tinytorch import nn
from tinytorch.benchmarks.tinymlperf.execution import SPARSE_FROM
from tinytorch.benchmarks.tinymlperf.export import export
from tinytorch.zoo.sparse_files import stored_bytes

TABLES = {"cnn": CNN, "gpt": GPT}
DENSE, ENDS = ("fuse", "filters", "low_rank", "zeros"), ("sparse_layers", "to_sparse", "quantize", "plan")


@cache
def after(which, *names):
    """Return the model after these optimisations."""
    return TABLES[which][names[-1]].apply(after(which, *names[:-1])) if names else reference(which)


@cache
def loss_after(which, *names):
    return checks.loss(which, after(which, *names))


@pytest.mark.parametrize(("first", "second"), pairs(CNN))
def test_two_optimisations_of_the_cnn_combine_or_say_why_not(first, second, tmp_path):
    check("cnn", (first,), second, tmp_path)


@pytest.mark.parametrize(("first", "second"), pairs(GPT))
def test_two_optimisations_of_the_gpt_combine_or_say_why_not(first, second, tmp_path):
    check("gpt", (first,), second, tmp_path)


@pytest.mark.parametrize(("which", "name"), [("cnn", name) for name in CNN] + [("gpt", name) for name in GPT])
def test_one_alone_does_what_was_predicted(which, name, tmp_path):
    check(which, (), name, tmp_path)


def check(which, names, name, folder):
    """Do the last one, and hold it against what its row says and what can be predicted of it."""
    before, step = after(which, *names), TABLES[which][name]
    if kind(before) in step.refuses:
        error, message = step.refuses[kind(before)]
        with pytest.raises(error, match=message):
            step.apply(before)
        assert step.why
        return
    result = after(which, *names, name)
    if kind(before) in step.leaves:
        assert result is before
        assert step.why
        return
    assert kind(result) == (kind(before) if step.gives == "layers" else step.gives)
    checks.need_near(checks.outputs(which, result), checks.outputs(which, step.expected(before)), step.tolerance)
    if step.lost:
        assert loss_after(which, *names, name) <= loss_after(which, *names) + step.lost
    if step.gives == "layers":
        check_layers(which, before, name, result)
        checks.need_profile(which, result)
        checks.need_submission(which, result, folder)
    elif step.gives == "plan":
        with pytest.raises(TypeError, match="a Plan cannot be exported"):
            export(result, checks.TASK[which])
    else:
        checks.need_profile(which, result)
        submission = checks.need_submission(which, result, folder)
        if name == "quantize":
            check_codes(which, before, result, submission)
        else:
            check_zeros(which, before, name, submission, step.needs in names)


def check_layers(which, before, name, result):
    """Hold the sizes and zeros of the layers against those predicted, and the profiler's count against both."""
    old, new = predictions.layers_of(before), predictions.layers_of(result)
    sizes = [layer.sizes for layer in new]
    if name == "filters":
        assert sizes == predictions.with_fewer_filters(old, FILTERS)
    elif name == "low_rank":
        weights = {path: layer.weight.data for path, layer in before.named_modules() if isinstance(layer, nn.Linear)}
        energy = ENERGY if which == "cnn" else TEXT_ENERGY
        expected = []
        for layer in old:
            is_thinned = layer.path in weights and (which == "cnn" or ".mlp." in layer.path)
            expected += predictions.with_low_rank([weights[layer.path]], energy) if is_thinned else [layer.sizes]
        assert sizes == expected
    else:
        assert sizes == [layer.sizes for layer in old]
    if name in ("filters", "low_rank"):
        assert sum(layer.dense_macs for layer in new) <= sum(layer.dense_macs for layer in old)
    if name == "zeros":
        assert new == predictions.layers_of(TABLES[which]["zeros"].expected(before))
        old_bytes, new_bytes = (sum(map(stored_bytes, m.state_dict().values())) for m in (before, result))
        assert new_bytes <= old_bytes
    elif name == "fuse":
        assert [layer.zeros for layer in new] == [layer.zeros for layer in old]
    difference = sum(layer.dense_macs for layer in old) - sum(layer.dense_macs for layer in new)
    assert checks.count(which, before).macs - checks.count(which, result).macs == difference


def check_codes(which, before, result, submission):
    """Hold the bytes and operations of whole numbers against those predicted: weights take a byte each."""
    layers, dense = predictions.layers_of(before), export(before, checks.TASK[which])
    saved = sum(3 * layer.size - 4 * layer.outputs for layer in layers)
    assert checks.weight_bytes(dense) - checks.weight_bytes(submission) == saved > 0
    if which == "cnn":
        assert submission.costs.flops == predictions.flops_of_whole_numbers(layers)
        assert 4 * submission.costs.peak_activation_bytes == dense.costs.peak_activation_bytes
    elif kind(before) == "layers":
        assert submission.costs.flops == checks.count(which, result).flops
    if kind(before) == "layers":
        assert submission.stored_bytes < 0.4 * dense.stored_bytes


def check_zeros(which, before, name, submission, pays):
    """Hold the bytes and operations of a file against those predicted; if zeros came before, they have to fall."""
    layers, dense = predictions.layers_of(before), export(before, checks.TASK[which])
    skipping = [
        layer
        for layer in layers
        if (name == "sparse_layers" and (which == "cnn" or ".mlp." in layer.path))
        or (name == "to_sparse" and layer.zeros / layer.size >= SPARSE_FROM.linear)
    ]
    skipped = sum(layer.zeros * layer.places for layer in skipping)
    # batch norm, which a file's float convolutions take in, stays beside sparse layers
    with_zeros = checks.count(which, before).flops if name == "sparse_layers" else dense.costs.flops
    assert with_zeros - submission.costs.flops == 2 * skipped
    saved = sum(4 * layer.size - layer.sparse_bytes for layer in skipping)
    assert checks.weight_bytes(dense) - checks.weight_bytes(submission) == saved
    if pays:
        assert skipped > 0
        assert saved > 0 or which == "gpt"  # a fifth of zeros is worth less than the places of the others


# The whole chain


@pytest.mark.parametrize("number", range(24))
def test_the_four_that_leave_float_layers_come_in_any_order_and_then_each_of_the_ends(number, tmp_path):
    """Each end follows six of the orders."""
    order = list(itertools.permutations(DENSE))[number]
    for count, name in enumerate(order):
        step, before = CNN[name], after("cnn", *order[:count])
        expected = checks.outputs("cnn", step.expected(before))
        checks.need_near(checks.outputs("cnn", after("cnn", *order[: count + 1])), expected, step.tolerance)
    check("cnn", order, ENDS[number % 4], tmp_path)
    allowed = sum(CNN[name].lost for name in order)
    assert loss_after("cnn", *order) <= loss_after("cnn") + allowed
    macs = [sum(layer.dense_macs for layer in predictions.layers_of(m)) for m in (after("cnn", *order), after("cnn"))]
    assert macs[0] < 0.92 * macs[1]


@pytest.mark.parametrize("order", [("low_rank", "zeros"), ("zeros", "low_rank")])
def test_the_gpt_takes_all_of_its_own(order, tmp_path):
    check("gpt", order, "sparse_layers", tmp_path)
    allowed = sum(GPT[name].lost for name in order)
    assert loss_after("gpt", *order, "sparse_layers") <= loss_after("gpt") + allowed


# What one of the models has no use for


@pytest.mark.parametrize("name", NOT_FOR_A_GPT)
def test_the_gpt_refuses_what_is_for_images(name):
    apply, (error, message), why = NOT_FOR_A_GPT[name]
    with pytest.raises(error, match=message):
        apply(reference("gpt"))
    assert why


@pytest.mark.parametrize("name", NOT_FOR_A_CNN)
def test_the_cnn_refuses_what_is_for_texts(name):
    apply, (error, message), why = NOT_FOR_A_CNN[name]
    with pytest.raises(error, match=message):
        apply(reference("cnn"))
    assert why


@pytest.mark.parametrize(
    ("which", "name"), [*(("cnn", name) for name in ENDS[:3]), ("gpt", "sparse_layers"), ("gpt", "quantize")]
)
def test_what_has_run_can_be_copied(which, name):
    """Kernels that are prepared with the first call are prepared anew by the copy."""
    model = after(which, name)
    before = checks.outputs(which, model)
    np.testing.assert_array_equal(checks.outputs(which, copy.deepcopy(model)), before)


def test_nothing_changed_the_models_that_all_began_with():
    """Each optimisation leaves the model that it is given as it was."""
    from tinytorch import zoo

    for which, name in (("cnn", "reference_cnn"), ("gpt", "char_gpt")):
        for names in ((), *((step,) for step in TABLES[which])):
            after(which, *names)
        fresh = zoo.load(name).state_dict()
        for path, array in reference(which).state_dict().items():
            np.testing.assert_array_equal(array, fresh[path])
