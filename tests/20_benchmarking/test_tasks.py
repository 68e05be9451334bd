"""Tasks: hidden samples are new each time, references meet their targets, tricks do not."""

import numpy as np
import pytest
from safetensors.numpy import save_file

from tinytorch import no_grad
from tinytorch.benchmarks.tinymlperf.tasks import TASKS, Split, load_task
from tinytorch.tensor import Tensor

NAMES = sorted(TASKS)


def outputs(task, model, split: Split) -> np.ndarray:
    with no_grad():
        pieces = [split.inputs[i : i + 256] for i in range(0, len(split), 256)]
        return np.concatenate([model(Tensor(p) if p.dtype == np.float32 else p).data for p in pieces])


@pytest.fixture(scope="module", params=NAMES)
def evaluated(request):
    """A task, 1 in 8 of a hidden split, and the reference's quality on it."""
    task = load_task(request.param)
    split = task.hidden(seed=5)[::8]
    return task, split, task.quality(outputs(task, task.reference(), split), split)


def test_the_reference_meets_its_own_target(evaluated):
    task, _, quality = evaluated
    assert task.meets(quality, quality)


WANTED = {"image-classification": (90, 94), "language-model": (1.5, 1.8), "anomaly-detection": (0.96, 0.99)}


def test_hidden_samples_are_as_hard_as_the_public_ones(evaluated):
    task, _, quality = evaluated
    low, high = WANTED[task.name]
    assert low < quality < high


@pytest.mark.parametrize("name", NAMES)
def test_hidden_samples_depend_on_the_seed_alone(name):
    first, again, other = (load_task(name).hidden(seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.inputs, again.inputs)
    np.testing.assert_array_equal(first.labels, again.labels)
    assert len(first) == len(first.labels) == load_task(name).hidden_size
    seen = {sample.tobytes() for sample in first.inputs}
    assert sum(sample.tobytes() in seen for sample in other.inputs) < 0.01 * len(first)


@pytest.mark.parametrize("name", NAMES)
def test_what_models_are_given_is_what_the_task_says(name):
    task = load_task(name)
    for split in (task.hidden(0), task.public()):
        assert split.inputs.dtype == task.input.dtype
        assert split.inputs.ndim == len(task.input.shape)
        fixed = [(size, found) for size, found in zip(task.input.shape, split.inputs.shape, strict=True)]
        assert all(size == found for size, found in fixed if isinstance(size, int))


def test_a_table_of_the_test_images_knows_no_hidden_one():
    task = load_task("image-classification")
    known = {image.tobytes() for image in task.public().inputs}
    assert not any(image.tobytes() in known for image in task.hidden(3).inputs)


TRICKS = {
    "constants": lambda task, split: np.zeros((len(split), *_sizes(task, split)), np.float32),
    "the input itself": lambda task, split: np.resize(
        split.inputs.astype(np.float32), (len(split), *_sizes(task, split))
    ),
    "noise": lambda task, split: np.random.default_rng(0).random((len(split), *_sizes(task, split)), np.float32),
}


def _sizes(task, split):
    return tuple(size if isinstance(size, int) else split.inputs.shape[1] for size in task.output.shape[1:])


@pytest.mark.parametrize("trick", TRICKS.values(), ids=TRICKS)
def test_outputs_that_look_at_nothing_miss_the_target(evaluated, trick):
    task, split, reference = evaluated
    assert not task.meets(task.quality(trick(task, split), split), reference)


def test_a_loss_up_to_the_allowed_one_passes_and_more_does_not():
    images, text = load_task("image-classification"), load_task("language-model")
    assert images.meets(91.5, 92.0)
    assert images.meets(99.0, 92.0)
    assert not images.meets(90.5, 92.0)
    assert text.meets(1.72, 1.70)
    assert text.meets(1.0, 1.70)
    assert not text.meets(1.75, 1.70)


def test_an_organizer_s_own_samples_are_used(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {"inputs": rng.random((20, 1, 28, 28), np.float32), "labels": rng.integers(0, 10, 20)}
    save_file(arrays, tmp_path / "own.safetensors")
    split = load_task("image-classification", tmp_path / "own.safetensors").hidden(1)
    own = {image.tobytes(): label for image, label in zip(arrays["inputs"], arrays["labels"], strict=True)}
    assert len(split) == 20
    assert all(own[image.tobytes()] == label for image, label in zip(split.inputs, split.labels, strict=True))


WRONG = {
    "another name": ({"images": np.zeros((2, 1, 28, 28), np.float32)}, r"\['images'\].*inputs"),
    "another size": ({"inputs": np.zeros((2, 1, 8, 8), np.float32), "labels": np.zeros(2, np.int64)}, "28"),
    "another dtype": ({"inputs": np.zeros((2, 1, 28, 28), np.int64), "labels": np.zeros(2, np.int64)}, "float32"),
    "a label too few": ({"inputs": np.zeros((2, 1, 28, 28), np.float32), "labels": np.zeros(1, np.int64)}, "1 labels"),
}


@pytest.mark.parametrize(("arrays", "message"), WRONG.values(), ids=WRONG)
def test_samples_of_another_kind_are_refused(tmp_path, arrays, message):
    save_file(arrays, tmp_path / "own.safetensors")
    with pytest.raises(ValueError, match=message):
        load_task("image-classification", tmp_path / "own.safetensors").hidden(1)


def test_a_task_that_is_not_there_is_named():
    with pytest.raises(KeyError, match=r"'speech'.*language-model"):
        load_task("speech")
