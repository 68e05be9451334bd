"""Training that stops and goes on, files that are not as they should be, and what the shipped models reach."""

import itertools
import json
import os
from dataclasses import replace

import numpy as np
import pytest

from tinytorch import Tensor, data, nn, zoo
from tinytorch.data import DataError
from tinytorch.zoo import files, training
from tinytorch.zoo.__main__ import main
from tinytorch.zoo.evaluation import accuracy, nats_per_token
from tinytorch.zoo.recipes import RECIPES, Recipe

STEPS, INTERRUPTED_AT = 12, 7


def tiny_cnn(rng: np.random.Generator) -> nn.Sequential:
    """With running statistics: they are part of what has to be restored."""
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, rng=rng), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10, rng=rng)
    )


def digit_batches(seed: int):
    images, labels, _ = data.digits()

    def batch(step: int):
        chosen = np.random.default_rng([seed, step]).integers(0, len(images), 16)
        return images[chosen], labels[chosen]

    return batch


@pytest.fixture
def tiny(monkeypatch) -> Recipe:
    """A recipe called "tiny" that trains in a moment and writes a checkpoint after each step."""
    recipe = Recipe(
        build=tiny_cnn,
        batches=digit_batches,
        evaluate=lambda model: accuracy(model, data.digits()),
        metric={"name": "accuracy", "unit": "of 1", "what": "right answers on the digits"},
        dataset="digits",
        unit="images",
        steps=STEPS,
        warmup_steps=3,
        lr=0.01,
    )
    monkeypatch.setitem(RECIPES, "tiny", recipe)
    monkeypatch.setattr(training, "_SAVE_SECONDS", -1.0)
    return recipe


def interrupting(recipe: Recipe, at: int, by: type[BaseException] = KeyboardInterrupt) -> Recipe:
    """The same recipe, but Ctrl-C comes while the batch of step `at` is drawn."""
    calls = itertools.count(-1)  # the first call only asks for the size

    def batches(seed: int):
        batch = digit_batches(seed)

        def stop_or_batch(step: int):
            if next(calls) == at:
                raise by
            return batch(step)

        return stop_or_batch

    return replace(recipe, batches=batches)


def state_bytes(model: nn.Module) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in model.state_dict().items()}


# Interrupted and resumed


@pytest.mark.parametrize("at", [1, INTERRUPTED_AT, STEPS - 1])
def test_a_resumed_run_ends_with_the_bytes_of_one_that_was_not_interrupted(tiny, monkeypatch, tmp_path, at):
    whole, card = training.train("tiny", tmp_path / "whole", seed=3)
    monkeypatch.setitem(RECIPES, "tiny", interrupting(tiny, at))
    with pytest.raises(training.Interrupted, match=rf"{at} of {STEPS} steps.*train tiny --seed 3 --resume"):
        training.train("tiny", tmp_path / "parts", seed=3)
    monkeypatch.setitem(RECIPES, "tiny", tiny)
    resumed, resumed_card = training.train("tiny", tmp_path / "parts", resume=True, seed=3)
    assert state_bytes(resumed) == state_bytes(whole)
    assert (tmp_path / "parts").read_bytes() == (tmp_path / "whole").read_bytes()
    assert resumed_card == card
    assert not resumed.training


def test_ctrl_c_in_the_middle_of_an_update_keeps_the_last_whole_checkpoint(tiny, monkeypatch, tmp_path):
    """Half of the parameters are of the new step then: the file must not be."""
    checkpoint = tmp_path / "tiny"
    update, calls = training.optim.AdamW._update, itertools.count()
    per_step = len(list(tiny_cnn(np.random.default_rng(0)).parameters()))

    def interrupted_update(self, *args):
        if next(calls) == INTERRUPTED_AT * per_step + 2:
            raise KeyboardInterrupt
        update(self, *args)

    monkeypatch.setattr(training.optim.AdamW, "_update", interrupted_update)
    with pytest.raises(training.Interrupted):
        training.train("tiny", checkpoint)
    monkeypatch.undo()
    assert int(files.read_arrays(checkpoint)["optimizer.steps"].item()) == INTERRUPTED_AT
    monkeypatch.setitem(RECIPES, "tiny", tiny)
    resumed, _ = training.train("tiny", checkpoint, resume=True)
    whole, _ = training.train("tiny", tmp_path / "whole")
    assert state_bytes(resumed) == state_bytes(whole)


def test_ctrl_c_in_the_first_half_minute_leaves_the_checkpoint_of_the_start(tiny, monkeypatch, tmp_path):
    monkeypatch.setattr(training, "_SAVE_SECONDS", 1e9)
    monkeypatch.setitem(RECIPES, "tiny", interrupting(tiny, INTERRUPTED_AT))
    with pytest.raises(training.Interrupted, match="--resume"):
        training.train("tiny", tmp_path / "tiny")
    assert int(files.read_arrays(tmp_path / "tiny")["optimizer.steps"].item()) == 0


def test_ctrl_c_during_the_evaluation_keeps_the_trained_model(tiny, monkeypatch, tmp_path):
    def interrupted(model):
        raise KeyboardInterrupt

    monkeypatch.setitem(RECIPES, "tiny", replace(tiny, evaluate=interrupted))
    with pytest.raises(training.Interrupted, match=f"{STEPS} of {STEPS} steps"):
        training.train("tiny", tmp_path / "tiny")
    assert int(files.read_arrays(tmp_path / "tiny")["optimizer.steps"].item()) == STEPS


def test_the_schedule_reaches_the_optimizer(tiny, monkeypatch, tmp_path):
    rates = []
    step = training.optim.AdamW.step
    monkeypatch.setattr(training.optim.AdamW, "step", lambda self: rates.append(self.lr) or step(self))
    training.train("tiny", tmp_path / "tiny")
    assert rates == [0.01 * training.optim.warmup_cosine(i, STEPS, 3) for i in range(STEPS)]


def test_training_learns_and_equal_seeds_give_equal_weights(tiny, tmp_path):
    first, card = training.train("tiny", tmp_path / "1", steps=60)
    second, _ = training.train("tiny", tmp_path / "2", steps=60)
    other, _ = training.train("tiny", tmp_path / "3", steps=60, seed=1)
    assert state_bytes(first) == state_bytes(second) != state_bytes(other)
    assert card["rows"]["accuracy"]["value"] == accuracy(first, data.digits()) > 0.7


@pytest.mark.parametrize(
    ("arguments", "end"), [({}, ""), ({"seed": 5}, " --seed 5"), ({"steps": 2, "seed": 1}, " --seed 1 --steps 2")]
)
def test_the_card_says_how_to_train_this_model_again(tiny, tmp_path, arguments, end):
    model, card = training.train("tiny", tmp_path / "tiny", **arguments)
    assert card["command"] == "python -m tinytorch.zoo train tiny" + end
    assert card["parameters"] == model.num_parameters()
    assert card["seed"] == arguments.get("seed", 0)
    assert card["recipe"]["steps"] == arguments.get("steps", STEPS)
    shipped = json.loads((data.files.FOLDER / "digits.json").read_text())["files"]
    assert card["data"]["sha256_unpacked"] == {name: entry["sha256"] for name, entry in shipped.items()}


# What goes wrong


def test_an_existing_checkpoint_is_never_overwritten_without_resume(tiny, tmp_path):
    (tmp_path / "tiny").write_bytes(b"somebody's work")
    with pytest.raises(FileExistsError, match="--resume"):
        training.train("tiny", tmp_path / "tiny")
    assert (tmp_path / "tiny").read_bytes() == b"somebody's work"


def test_a_loss_that_is_not_finite_stops_training_and_stays_out_of_the_checkpoint(tiny, monkeypatch, tmp_path):
    def batches(seed: int):
        batch = digit_batches(seed)
        return lambda step: (batch(step)[0] * np.float32(np.nan if step == 5 else 1), batch(step)[1])

    monkeypatch.setitem(RECIPES, "tiny", replace(tiny, batches=batches))
    with pytest.raises(FloatingPointError, match="the loss is nan at step 5"):
        training.train("tiny", tmp_path / "tiny")
    arrays = files.read_arrays(tmp_path / "tiny")
    assert arrays["optimizer.steps"].item() == 5
    assert all(np.isfinite(array).all() for array in arrays.values())


def other_model(raw: bytes) -> bytes:
    arrays = {f"model.{name}": array for name, array in nn.Linear(2, 2).state_dict().items()}
    return files.pack(arrays | {"optimizer.steps": np.asarray(3)})


DAMAGES = {
    "missing": None,
    "empty": lambda raw: b"",
    "truncated": lambda raw: raw[:-1],
    "truncated in the header": lambda raw: raw[:20],
    "a header of 2**60 bytes": lambda raw: (2**60).to_bytes(8, "little") + raw[8:],
    "no safetensors": lambda raw: b"<html>404</html>" * 9,
    "another model's": other_model,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_checkpoint_is_one_error_that_names_the_file(tiny, tmp_path, damage, capsys):
    checkpoint = tmp_path / "tiny"
    training.train("tiny", checkpoint, steps=1)
    raw = checkpoint.read_bytes()
    checkpoint.unlink()
    if damage:
        checkpoint.write_bytes(damage(raw))
    with pytest.raises(DataError, match=str(checkpoint)):
        training.train("tiny", checkpoint, resume=True)
    assert main(["train", "tiny", "--resume", "--checkpoint", str(checkpoint)]) == 1
    assert f"error: {checkpoint}" in capsys.readouterr().err


@pytest.mark.parametrize("damage", [d for n, d in DAMAGES.items() if n != "another model's"])
def test_damaged_weights_are_one_error_that_says_what_to_run(tmp_path, damage):
    path = files.save_model("some", {"weight": np.ones(3, np.float32)}, {"name": "some"}, tmp_path)
    np.testing.assert_array_equal(files.read_state("some", tmp_path)["weight"], np.ones(3))
    raw = path.read_bytes()
    path.unlink()
    if damage:
        path.write_bytes(damage(raw))
    with pytest.raises(DataError, match=r"some\.safetensors.*git checkout -- .*some\.safetensors"):
        files.read_state("some", tmp_path)
    (tmp_path / "some.json").write_text("{")
    with pytest.raises(DataError, match=r"some\.json.*git checkout -- .*some\.json"):
        files.read_state("some", tmp_path)


def test_an_unknown_model_is_an_error_that_lists_the_known_ones():
    with pytest.raises(KeyError, match=r"'resnet'.*reference_cnn, char_gpt"):
        zoo.load("resnet")


def test_a_file_is_replaced_at_once(tmp_path, monkeypatch):
    """A crash before the replacement leaves the old contents."""
    files.write(tmp_path / "new folder" / "file", b"old")
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("crash")))
    with pytest.raises(OSError, match="crash"):
        files.write(tmp_path / "new folder" / "file", b"new")
    assert (tmp_path / "new folder" / "file").read_bytes() == b"old"
    assert len(list((tmp_path / "new folder").iterdir())) == 1


# The command line


def test_the_command_trains_lists_and_evaluates(tiny, monkeypatch, tmp_path, capsys):
    for name in list(RECIPES):
        if name != "tiny":
            monkeypatch.delitem(RECIPES, name)
    for function in (files.read_card, files.read_state):
        monkeypatch.setattr(function, "__defaults__", (tmp_path / "out",))
    train = ["train", "tiny", "--checkpoint", str(tmp_path / "checkpoint"), "--out", str(tmp_path / "out")]
    assert main(["evaluate", "tiny"]) == 1
    assert "git checkout" in capsys.readouterr().err
    assert main(train) == 0
    assert main(train) == 1
    assert "--resume" in capsys.readouterr().err
    trained = f"{accuracy(zoo.load('tiny'), data.digits()):.4f} of 1, right answers on the digits"
    for command in (["list"], ["evaluate", "tiny"]):
        assert main(command) == 0
        assert trained in capsys.readouterr().out
    assert (tmp_path / "out" / "tiny.safetensors").exists()


def test_ctrl_c_gives_exit_code_130_and_the_command_that_goes_on(tiny, monkeypatch, tmp_path, capsys):
    train = ["train", "tiny", "--checkpoint", str(tmp_path / "checkpoint"), "--out", str(tmp_path / "out")]
    monkeypatch.setitem(RECIPES, "tiny", interrupting(tiny, INTERRUPTED_AT))
    assert main(train) == 130
    assert f"zoo train tiny --resume --checkpoint {tmp_path / 'checkpoint'}" in capsys.readouterr().err
    assert main([*train, "--resume"]) == 0


# The two numbers


def test_accuracy_counts_every_image_once_whatever_the_batch():
    images, labels, classes = data.digits()
    model = tiny_cnn(np.random.default_rng(0)).eval()
    right = [model(Tensor(x[None])).data.argmax() == label for x, label in zip(images[:100], labels[:100], strict=True)]
    first = data.Images(images[:100], labels[:100], classes)
    assert [accuracy(model, first, size) for size in (1, 7, 100, 1000)] == [pytest.approx(np.mean(right))] * 4


@pytest.mark.parametrize("length", [2, 5, 6, 7, 23])
def test_nats_per_token_predict_every_token_but_the_first_once(length):
    model = nn.GPT(4, 8, 1, 2, 5, rng=np.random.default_rng(0))
    for p in model.parameters():
        p.data += 0.3 * np.random.default_rng(1).standard_normal(p.shape, dtype=np.float32)
    tokens = np.random.default_rng(2).integers(0, 4, length).astype(np.uint8)
    total = 0.0
    for i in range(1, length):
        start = (i - 1) // 5 * 5  # the window that predicts token i
        logits = model(tokens[None, start:i].astype(np.int64)).data[0, -1].astype(np.float64)
        total -= logits[tokens[i]] - np.log(np.exp(logits).sum())
    text = data.Text(tokens, "abcd", ())
    for batch_size in (1, 3):
        assert nats_per_token(model, text, batch_size) == pytest.approx(total / (length - 1), rel=1e-5)
