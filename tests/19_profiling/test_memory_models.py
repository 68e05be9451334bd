"""Memory of the models of the book: the same bytes on every machine."""

import numpy as np
import pytest

from tinytorch import Tensor, backend, nn, no_grad, optim
from tinytorch.nn.functional import cross_entropy
from tinytorch.profiling.memory.profiler import MemoryProfiler, training_memory
from tinytorch.zoo.models import char_gpt, reference_cnn

FLOAT = 4
CNN_PARAMETERS = FLOAT * 98_666
VOCABULARY, WIDTH, LAYERS, HEADS = 11, 16, 2, 4


pytestmark = pytest.mark.usefixtures("on_numpy")


def cnn_activations(batch: int) -> int:
    convolution, norm, relu = (16 * 28 * 28 + 32 * 14 * 14 + 64 * 7 * 7,) * 3
    pool = 16 * 14 * 14 + 32 * 7 * 7 + 64 * 3 * 3
    head, cross_entropy = 128 + 128 + 10, 2
    statistics = 2 * (16 + 32 + 64)
    loss = 1
    return FLOAT * (batch * (convolution + norm + relu + pool + head + cross_entropy) + statistics + loss)


def images(batch: int) -> tuple[Tensor, np.ndarray]:
    rng = np.random.default_rng(0)
    return Tensor(rng.random((batch, 1, 28, 28), np.float32)), rng.integers(0, 10, batch)


@pytest.mark.parametrize("batch", [1, 32])
def test_a_training_step_of_the_reference_cnn(batch):
    model = reference_cnn(np.random.default_rng(0))
    optimizer = optim.AdamW(model.parameters())
    x, y = images(batch)
    with MemoryProfiler(model, optimizer) as memory:
        loss = cross_entropy(model(x), y)
        kept = memory.timeline[-1].tensors
        loss.backward()
        optimizer.step()
    last = memory.timeline[-1].tensors
    assert kept["activations"] == cnn_activations(batch)
    assert sum(row[5] for row in memory.layers().rows if row[1] != "Sequential") == cnn_activations(batch)
    assert last["parameters"] == last["gradients"] == CNN_PARAMETERS
    assert last["optimizer state"] == 2 * CNN_PARAMETERS
    assert last["buffers"] == FLOAT * 2 * (16 + 32 + 64)
    assert last["inputs"] == x.nbytes + y.nbytes


def test_activations_of_the_reference_cnn_grow_with_the_batch_and_nothing_else_does():
    model = reference_cnn(np.random.default_rng(0))
    peaks = []
    for batch in (8, 16, 24):
        x, y = images(batch)
        peaks.append(training_memory(model, lambda x=x, y=y: cross_entropy(model(x), y)))
    for category in ("activations", "gradients", "inputs"):
        small, middle, large = (peak[category] for peak in peaks)
        assert middle - small == large - middle > 0
    assert len({(peak["parameters"], peak["buffers"]) for peak in peaks}) == 1


@pytest.mark.parametrize("build", [reference_cnn, char_gpt])
def test_the_tensors_that_are_counted_are_the_memory_that_is_traced(build):
    rng = np.random.default_rng(0)
    model = build(rng)
    x, y = images(32) if build is reference_cnn else [rng.integers(0, model.vocab_size, (4, 64))] * 2
    with MemoryProfiler(model) as memory:
        cross_entropy(model(x), y).backward()
    for moment in memory.timeline:
        counted = moment.tensors["activations"] + moment.tensors["gradients"]
        assert abs(moment.traced - counted) < 1 << 16  # of 14 MiB; the rest are Python's objects
    assert memory.traced_peak > memory.peak["activations"] + memory.peak["gradients"] - (1 << 16)


def gpt(length: int) -> nn.GPT:
    return nn.GPT(VOCABULARY, WIDTH, LAYERS, HEADS, max_seq_len=length, rng=np.random.default_rng(0))


def gpt_activations(batch: int, length: int, table: bool) -> int:
    """With `table`, attention keeps a weight for each pair of positions, and a copy of its output; else a logarithm."""
    norms = 2 * (WIDTH + 2)
    attention = 3 * WIDTH + WIDTH + WIDTH + (WIDTH + HEADS * length if table else HEADS)  # in, mixed, out; see above
    mlp = 4 * WIDTH + 4 * WIDTH + WIDTH
    residual = 2 * WIDTH
    ends = 2 * WIDTH + (WIDTH + 2) + VOCABULARY + 2  # embeddings, last norm, head, cross-entropy
    positions, loss = length * WIDTH, 1
    return FLOAT * (batch * length * (LAYERS * (norms + attention + mlp + residual) + ends) + positions + loss)


def forward_of_gpt(batch: int, length: int) -> MemoryProfiler:
    ids = np.random.default_rng(0).integers(0, VOCABULARY, (batch, length))
    with MemoryProfiler(gpt(length)) as memory:
        memory.loss = cross_entropy(memory.model(ids), ids)
    return memory


@pytest.mark.parametrize(("batch", "length"), [(1, 8), (3, 8), (2, 32)])
def test_activations_of_a_gpt_are_quadratic_in_the_length_where_attention_writes_its_table(batch, length):
    memory = forward_of_gpt(batch, length)
    assert memory.peak["activations"] == gpt_activations(batch, length, table=True)
    assert memory.peak["parameters"] == FLOAT * memory.model.num_parameters()


@pytest.mark.parametrize(("batch", "length"), [(1, 8), (3, 8), (2, 32)])
def test_activations_of_a_gpt_are_linear_in_the_length_with_compiled_attention(batch, length):
    pytest.importorskip("numba")
    with backend("numba"):
        memory = forward_of_gpt(batch, length)
    assert memory.peak["activations"] == gpt_activations(batch, length, table=False)


def test_generating_keeps_no_activations_and_a_cache_that_does_not_grow():
    model = gpt(32)
    with MemoryProfiler(model) as memory:
        model.generate([1, 2, 3], 20, top_k=1)
    assert {moment.tensors["cache"] for moment in memory.timeline[3:]} <= {
        layers * 2 * 32 * WIDTH * FLOAT for layers in (1, LAYERS)
    }
    assert sum(row[5] for row in memory.layers().rows) == 0
    assert memory.peak["activations"] < gpt_activations(1, 3, table=True)


def test_the_character_model_of_the_book_at_its_full_size():
    model = char_gpt(np.random.default_rng(0))
    with MemoryProfiler(model, optim.AdamW(model.parameters())) as memory, no_grad():
        model(np.zeros((1, 4), np.int64))
    assert memory.peak["parameters"] == FLOAT * model.num_parameters()
    assert memory.peak["optimizer state"] == 2 * memory.peak["parameters"]
    assert memory.peak["gradients"] == 0
