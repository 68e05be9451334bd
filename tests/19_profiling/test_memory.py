"""What a profile of memory says: hand-computed bytes, names and layers."""

import numpy as np
import pytest

from tinytorch import Tensor, nn, no_grad, optim
from tinytorch.nn.attention import PastKeyValue
from tinytorch.nn.functional import cross_entropy
from tinytorch.profiling.memory.profiler import MemoryProfiler, training_memory

FLOAT = 4


pytestmark = pytest.mark.usefixtures("on_numpy")


PARAMETERS = FLOAT * (20 * 30 + 30 + 30 * 10 + 10)
ACTIVATIONS = FLOAT * 8 * (30 + 30 + 10) + FLOAT * (
    8 + 8 + 1
)  # and what cross-entropy keeps for each row, and the loss


def test_a_training_step_of_an_mlp_has_the_bytes_that_were_computed_by_hand(model, batch):
    optimizer = optim.AdamW(model.parameters())
    x, y = batch
    with MemoryProfiler(model, optimizer) as memory:
        loss = cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        del loss
    moments = {f"{m.name} {m.path}".strip(): m.tensors for m in memory.timeline}
    assert moments["CrossEntropy"] == {
        "parameters": PARAMETERS,
        "buffers": 0,
        "optimizer state": 2 * PARAMETERS,
        "cache": 0,
        "gradients": 0,
        "activations": ACTIVATIONS,
        "inputs": x.nbytes + y.nbytes,
    }
    logits = FLOAT * 8 * 10
    assert moments["CrossEntropyBackward"]["gradients"] == FLOAT + logits  # d loss / d loss, and that of the logits
    second = FLOAT * (8 * 30 + 30 * 10 + 10)
    assert moments["LinearBackward 2"]["gradients"] == FLOAT + logits + second
    assert moments["backward"]["gradients"] == PARAMETERS
    assert memory.timeline[-1].tensors["gradients"] == PARAMETERS
    assert end_of(memory, "optimizer state") == 2 * PARAMETERS
    assert end_of(memory, "activations") == 0  # they went with the loss


def end_of(memory: MemoryProfiler, category: str) -> int:
    return next(row[-1] for row in memory.table().rows if row[0].strip() == category)


def test_the_peak_counts_all_that_is_alive_together_also_between_calls(model, batch):
    x, y = batch
    with MemoryProfiler(model) as memory:
        loss = cross_entropy(model(x), y)
        loss.backward()
    # a leaf's gradient is copied into `grad` at the end of the pass, when the new ones of all leaves are still waiting
    new, copied = PARAMETERS, FLOAT * 20 * 30
    assert memory.peak["gradients"] == FLOAT + new + copied
    assert memory.peak["total"] == sum(bytes for category, bytes in memory.peak.items() if category != "total")
    assert memory.peak["total"] > max(sum(moment.tensors.values()) for moment in memory.timeline)


def test_a_moment_is_before_what_a_derivative_used_is_freed(rng):
    norm = nn.BatchNorm2d(5)
    with MemoryProfiler(norm) as memory:
        norm(Tensor(rng.random((2, 5, 3, 3), np.float32), requires_grad=True)).sum().backward()
    statistics = FLOAT * (5 + 5)
    forward, total, _, backward, end = [moment.tensors["activations"] for moment in memory.timeline]
    assert total - forward == FLOAT
    assert backward == total
    assert end <= total - statistics


def test_what_was_alive_at_the_peak_is_named_and_adds_up(model, batch):
    x, y = batch
    with MemoryProfiler(model) as memory:
        loss = cross_entropy(model(x), y)
        del loss
    table = memory.at_peak()
    rows = [row[:3] for row in table.rows]
    assert ("parameters", "0.weight", (30, 20)) in rows
    assert ("activations", "output of Linear 0", (8, 30)) in rows
    assert ("activations", "output of ReLU 1", (8, 30)) in rows
    assert ("activations", "saved by CrossEntropy", (8,)) in rows
    assert ("inputs", "input of Linear 0", (8, 20)) in rows
    assert ("inputs", "input of CrossEntropy", (8,)) in rows
    sizes = [row[3] for row in table.rows]
    assert sizes == sorted(sizes, reverse=True)
    assert sum(sizes) == memory.peak["total"] == PARAMETERS + ACTIVATIONS + x.nbytes + y.nbytes


def test_gradients_are_named_by_what_they_are_gradients_of(model, batch):
    x, y = batch
    with MemoryProfiler(model) as memory:
        cross_entropy(model(x), y).backward()
        held = [np.zeros(1 << 20, np.float32)]
        Tensor(held[0]).exp()  # the peak is here
    names = {row[1] for row in memory.at_peak().rows if row[0] == "gradients"}
    assert names == {f"gradient of {name}" for name, _ in model.named_parameters()}
    with MemoryProfiler(model) as again:
        cross_entropy(model(x), y).backward()
    assert {"gradient of 0.weight", "new gradient of 0.weight"} <= {row[1] for row in again.at_peak().rows}


def test_gradients_that_are_added_up_are_counted_anew(model, batch):
    x, y = batch
    cross_entropy(model(x), y).backward()
    with MemoryProfiler(model) as memory:
        cross_entropy(model(x), y).backward()
        assert memory.timeline[-1].tensors["gradients"] == PARAMETERS
        model.zero_grad()
    assert memory.timeline[0].tensors["gradients"] == PARAMETERS
    assert end_of(memory, "gradients") == 0


def test_without_gradients_no_layer_keeps_anything(model, batch):
    with MemoryProfiler(model) as memory, no_grad():
        y = model(batch[0])
    assert [row[5] for row in memory.layers(operations=True).rows] == [0] * 7
    assert memory.timeline[-1].tensors["activations"] == FLOAT * 8 * (30 + 10)  # one layer's input and its output
    del y
    with MemoryProfiler(model) as training:
        model(batch[0])
    assert training.peak["activations"] == FLOAT * 8 * (30 + 30 + 10) > memory.peak["activations"]


def test_layers_are_listed_with_what_they_keep_and_what_derivatives_asked_for(model, batch):
    x, y = batch
    with MemoryProfiler(model) as memory:
        loss = cross_entropy(model(x), y)
        loss.backward()
    table = memory.layers()
    hidden, logits = FLOAT * 8 * 30, FLOAT * 8 * 10
    assert [(path, call.strip(), calls, kept, saved) for path, call, calls, _, _, kept, saved in table.rows] == [
        ("", "Sequential", 1, 2 * hidden + logits, hidden + logits),
        ("0", "Linear", 1, hidden, 0),  # its derivative needs the input; the graph holds the output all the same
        ("1", "ReLU", 1, hidden, hidden),
        ("2", "Linear", 1, logits, logits),
        ("", "Reshape", 1, 0, 0),
        ("", "CrossEntropy", 1, FLOAT * (8 + 8 + 1), FLOAT * (8 + 8)),
    ]
    assert sum(row[5] for row in table.rows[1:]) == ACTIVATIONS
    objects = 4096
    forward, backward = ([row[i] for row in table.rows] for i in (3, 4))
    assert hidden <= forward[1] < hidden + objects
    assert forward[0] >= 2 * hidden + logits
    assert FLOAT * (20 * 30 + 30) <= backward[1] < FLOAT * (20 * 30 + 30) + objects
    assert backward[0] == max(backward[1:4])
    operations = memory.layers(operations=True)
    assert [row[1] for row in operations.rows[:4]] == ["Sequential", "Linear", "  Linear", "ReLU"]


def test_of_several_calls_the_largest_counts(model):
    with MemoryProfiler(model) as memory:
        for n in (2, 8, 4):
            model(Tensor(np.zeros((n, 20), np.float32)).exp())
    rows = memory.layers().rows
    assert [row[1:3] for row in rows] == [(n, 3) for n in ("Sequential", "Linear", "ReLU", "Linear", "Exp")]
    assert rows[1][5] == FLOAT * 8 * 30


def test_buffers_are_no_parameters(rng):
    norm = nn.BatchNorm2d(5)
    with MemoryProfiler(norm) as memory:
        norm(Tensor(rng.random((2, 5, 3, 3), np.float32)))
    assert (memory.peak["parameters"], memory.peak["buffers"]) == (40, 40)
    assert memory.peak["activations"] == FLOAT * (2 * 5 * 3 * 3 + 5 + 5)  # the output; mean and inverse deviation


def test_a_model_and_an_optimizer_that_were_not_given_are_met_when_they_are_called(model, batch):
    optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    x, y = batch
    with MemoryProfiler() as memory:
        cross_entropy(model(x), y).backward()
        assert memory.timeline[0].tensors["parameters"] == PARAMETERS
        assert memory.timeline[-1].tensors["optimizer state"] == 0
        optimizer.step()
    assert memory.timeline[-1].tensors["optimizer state"] == PARAMETERS
    assert ("parameters", "Sequential.0.weight") in {row[:2] for row in memory.at_peak().rows}


def test_caches_of_keys_and_values_are_found_in_calls_and_can_be_given(rng):
    gpt = nn.GPT(11, embed_dim=8, num_layers=3, num_heads=2, max_seq_len=16, rng=rng)
    one = 2 * 16 * 8 * FLOAT  # keys and values of one layer for one sequence
    with MemoryProfiler(gpt) as memory:
        gpt.generate([1, 2, 3], 5, rng=rng)
    assert memory.peak["cache"] == 3 * one
    assert end_of(memory, "cache") == 0
    assert "keys of the cache" in {row[1] for row in memory.at_peak().rows}
    caches = gpt.empty_past_key_values(4)
    with MemoryProfiler(gpt) as memory, no_grad():
        gpt.blocks[2](Tensor(np.ones((4, 2, 8), np.float32)), caches[2])
    assert "keys of the cache of blocks.2" in {row[1] for row in memory.at_peak().rows}
    with MemoryProfiler(gpt, caches=caches) as memory:
        pass
    assert memory.peak["cache"] == 3 * 4 * one
    with pytest.raises(TypeError, match="in lists there: int has none"):
        MemoryProfiler(caches=[5])
    assert MemoryProfiler(caches=[PastKeyValue(1, 1, 1, 1)]).peak["total"] == 0


def test_training_memory_is_that_of_one_step_whatever_was_before(model, batch):
    x, y = batch
    optimizer = optim.AdamW(model.parameters())
    first = training_memory(model, lambda: cross_entropy(model(x), y), optimizer)
    again = training_memory(model, lambda: cross_entropy(model(x), y), optimizer)
    assert first == again
    assert (first["parameters"], first["optimizer state"]) == (PARAMETERS, 2 * PARAMETERS)
    assert first["total"] == sum(first.values()) - first["total"]
    without = training_memory(model, lambda: cross_entropy(model(x), y))
    assert without == {**first, "optimizer state": 0, "total": first["total"] - 2 * PARAMETERS}


def test_the_three_numbers_are_shown_as_text_and_in_notebooks(model, batch):
    with MemoryProfiler(model) as memory:
        y = model(batch[0])
    assert y.shape == (8, 10)
    assert str(memory) == str(memory.table())
    assert memory.table().rows[0][1:] == (0, memory.traced_peak, memory.traced_kept)
    assert memory.traced_peak > memory.traced_kept > 0
    for line in ("traced, above the start", "tensors", "  activations", "process, highest so far"):
        assert f"\n{line}" in str(memory)
    assert "<table>" in memory._repr_html_()
    before, after = memory.process
    if before.nbytes is not None:
        assert after.nbytes > 0
    assert memory.process[1].source in str(memory)


def test_gradients_of_leaves_count_also_where_what_they_were_copied_from_stays(rng):
    x, gradient = Tensor(rng.random(10, np.float32), requires_grad=True), np.ones(10, np.float32)
    with MemoryProfiler() as memory:
        (x + 1.0).backward(gradient)
    assert [moment.tensors["gradients"] for moment in memory.timeline] == [0, 40, 80]
    y = Tensor(rng.random(10, np.float32), requires_grad=True)
    with MemoryProfiler() as memory:
        (x + y * 2.0).backward(gradient)  # the gradient of x is added up before the derivative of y * 2 is called
    assert [moment.tensors["gradients"] for moment in memory.timeline] == [0, 0, 40, 120, 120]


def test_parameters_without_a_module_and_graphs_of_before_the_block_are_told_from_inputs(rng):
    weight, x = nn.Parameter(rng.random((5, 4), np.float32)), Tensor(rng.random((3, 5), np.float32))
    hidden = x @ weight
    with MemoryProfiler() as memory:
        y = hidden + x @ weight
    assert (memory.peak["parameters"], memory.peak["inputs"], memory.peak["activations"]) == (80, 60, 3 * 48)
    assert y.shape == (3, 4)
