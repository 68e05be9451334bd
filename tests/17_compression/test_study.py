"""The published accuracies of smaller models: found again where that takes a second, and the aims that they reach."""

import json
from dataclasses import replace

import numpy as np
import pytest

from tinytorch import Tensor, data, nn, zoo
from tinytorch.book.results import measured
from tinytorch.compression import __main__ as command
from tinytorch.compression import measure_sparsity, study
from tinytorch.compression.study import points, run, shipped
from tinytorch.compression.study.points import AIMS, Point
from tinytorch.quantization import INT8Quantizer
from tinytorch.zoo.sparse_files import stored_bytes

ENTRY = json.loads(study.RESULTS.read_text(encoding="utf-8"))["17_study"]
ROWS, VALUES = ENTRY["rows"], ENTRY["values"]
TABLE = points.points()
CLOSE_CALLS = 0.05  # percent: another BLAS, or a kernel that adds in another order, may turn a few of 10,000 answers


# What is published


def test_every_point_is_published_with_its_seeds_machine_and_date():
    assert list(ROWS) == list(VALUES) == list(TABLE)
    for name, point in TABLE.items():
        row, values = ROWS[name], VALUES[name]
        assert len(values) == (3 if point.epochs else 1)
        assert (row["low"], row["high"]) == (min(values), max(values))
        assert row["value"] == pytest.approx(np.mean(values), abs=0.006)
        assert row == run.rows({name: values})[name]
        assert ("seeds 0 to 2" in row["what"]) == bool(point.epochs)
    assert ENTRY["machine"].keys() == {"cpu", "cores", "blas", "python", "numpy"}
    assert ENTRY["recipe"] == points.RECIPE
    assert measured("17_study/global_90").low == min(VALUES["global_90"])
    assert measured("17_study/global_90").source.startswith(f"Measured by `{run.COMMAND}` on {ENTRY['date']}: ")


@pytest.mark.parametrize("name", AIMS)
def test_an_aim_is_reached_at_every_seed(name):
    assert measured(f"17_study/{name}").low >= measured("17_study/fp32").value - AIMS[name] - 1e-9
    assert ROWS[name]["what"].endswith("points lost: reached)")


def test_the_model_of_the_aim_for_70_percent_is_physically_that_small():
    assert study.read_card("physical_70")["parameters"] <= 0.3 * zoo.read_card("reference_cnn")["parameters"]


@pytest.mark.parametrize("name", study.names())
def test_a_shipped_model_reaches_what_its_card_says(name):
    model, card = study.load(name), study.read_card(name)
    assert not model.training
    assert run.percent(model) == pytest.approx(card["rows"]["accuracy"]["value"], abs=CLOSE_CALLS)
    assert card["rows"]["accuracy"]["value"] == VALUES[name][0]
    assert card["parameters"] == model.num_parameters()
    assert card["sparsity"] == pytest.approx(measure_sparsity(model).sparsity, abs=1e-6)
    assert card["command"] == f"python -m tinytorch.compression study --only {name}"
    assert card["recipe"] == {"optimizer": "AdamW", "epochs": TABLE[name].epochs} | points.RECIPE


def test_the_models_that_ship_are_those_that_the_table_names():
    assert set(study.names()) == {name for name, point in TABLE.items() if point.ships}


def test_zeros_are_where_their_names_say():
    for name in study.names():
        kind, _, level = name.rpartition("_")
        if kind in ("global", "layer", "adaptive"):
            assert measure_sparsity(study.load(name)).sparsity == pytest.approx(int(level) / 100, abs=1e-4)
    for layer in study.load("semi_structured"):
        if isinstance(layer, nn.Linear):
            assert ((layer.weight.data.reshape(-1, 4) != 0).sum(axis=1) <= 2).all()


@pytest.mark.parametrize("name", study.names())
def test_a_file_is_as_small_as_the_count_says(name):
    counted = sum(stored_bytes(array) for array in study.load(name).state_dict().values())
    assert counted < study.read_card(name)["bytes"] < counted + 3000  # names and shapes


def test_the_more_zeros_the_smaller_the_file():
    sizes = [study.read_card(f"global_{level}")["bytes"] for level in points.LEVELS]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[points.LEVELS.index(90)] < 0.2 * zoo.read_card("reference_cnn")["bytes"]


@pytest.mark.parametrize("name", [name for name, point in TABLE.items() if not point.epochs])
def test_what_is_not_trained_on_is_found_again(name):
    assert run.percent(TABLE[name].make(0)) == pytest.approx(VALUES[name][0], abs=CLOSE_CALLS)


def test_training_on_the_images_that_ship_is_found_again():
    """From the first step on, sums in another order make another model: as good as other seeds', not the same."""
    found = run.percent(TABLE["shipped_70"].make(0))
    assert found == pytest.approx(ROWS["shipped_70"]["value"], abs=0.4)
    assert found > VALUES["global_70_before"][0] + 5


# Running it


@pytest.fixture
def tiny(monkeypatch) -> dict[str, Point]:
    """A table that takes a moment: two points trained on digits, one with a model that ships, and one untrained."""
    digits = data.digits()
    monkeypatch.setattr(run, "images", lambda split: digits)

    def trained(seed: int) -> nn.Sequential:
        rng = np.random.default_rng(seed)
        model = nn.Sequential(nn.Conv2d(1, 4, 3, rng=rng), nn.Flatten(), nn.Linear(144, 10, rng=rng))
        points.fine_tune(model, digits, epochs=1, rng=rng, progress=False)
        return model

    table = {
        "a_before": Point("a, not trained on", lambda seed: trained(7)),
        "a": Point("a, trained", trained, epochs=1, ships=True),
        "b": Point("b, trained", lambda seed: trained(seed + 10), epochs=1),
    }
    monkeypatch.setattr(run, "points", lambda: dict(table))
    monkeypatch.setattr(command, "points", lambda: dict(table))
    return table


def contents(folder) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def interrupting(table, monkeypatch, at: int, by: type[BaseException] = KeyboardInterrupt) -> None:
    """Let Ctrl-C come while model number `at` is made."""
    made = []

    def stop_or(make):
        def wrapped(seed: int) -> nn.Sequential:
            if len(made) == at:
                raise by
            made.append(seed)
            return make(seed)

        return wrapped

    stopping = {name: replace(point, make=stop_or(point.make)) for name, point in table.items()}
    monkeypatch.setattr(run, "points", lambda: stopping)


@pytest.mark.parametrize("at", [0, 1, 2, 4, 6])
def test_a_resumed_study_ends_with_the_bytes_of_one_that_was_not_interrupted(tiny, monkeypatch, tmp_path, at):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert command.main(["study", "--out", str(whole)]) == 0
    interrupting(tiny, monkeypatch, at)
    assert command.main(["study", "--out", str(parts)]) == 130
    monkeypatch.setattr(run, "points", lambda: tiny)
    known = json.loads((parts / "results.json").read_text())["17_study"]["values"] if at else {}
    assert sum(map(len, known.values())) == at
    made = []
    for name, point in tiny.items():
        tiny[name] = replace(point, make=lambda seed, make=point.make: made.append(seed) or make(seed))
    assert command.main(["study", "--resume", "--out", str(parts)]) == 0
    assert len(made) == 7 - at
    assert contents(parts) == contents(whole)
    assert contents(parts).keys() == {
        "results.json", str(shipped.Path("weights/a.json")), str(shipped.Path("weights/a.safetensors")),
    }  # fmt: skip


def test_ctrl_c_says_what_is_kept_and_how_to_go_on(tiny, monkeypatch, tmp_path, capsys):
    interrupting(tiny, monkeypatch, 3)
    assert command.main(["study", "--out", str(tmp_path)]) == 130
    assert "stopped: 3 of 7 models measured. Go on with the same, and --resume" in capsys.readouterr().err


def test_some_points_are_measured_anew_and_the_others_stay(tiny, tmp_path, capsys):
    run.study(folder=tmp_path)
    before = json.loads((tmp_path / "results.json").read_text())["17_study"]
    tiny["b"] = replace(tiny["b"], make=lambda seed: tiny["a"].make(3))
    capsys.readouterr()
    assert command.main(["study", "--only", "b", "--seeds", "2", "--out", str(tmp_path)]) == 0
    after = json.loads((tmp_path / "results.json").read_text())["17_study"]
    assert {name: after["values"][name] for name in ("a_before", "a")} == {
        name: before["values"][name] for name in ("a_before", "a")
    }
    assert after["values"]["b"] == [run.percent(tiny["a"].make(3))] * 2
    assert "17_study/b " in capsys.readouterr().out


def test_the_row_of_an_aim_tells_whether_it_was_reached():
    fp32 = zoo.read_card("reference_cnn")["rows"]["accuracy"]["value"]
    for lost, word in ((0.3, "reached"), (0.31, "missed")):
        row = run.rows({"global_70": [fp32, fp32 - lost, fp32]})["global_70"]
        assert row["what"].endswith(f"; seeds 0 to 2 (aim at most 0.3 points lost: {word})")


# What goes wrong


def test_missing_images_are_one_error_before_anything_is_measured(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("FASHION_MNIST", str(tmp_path / "nowhere"))
    points.images.cache_clear()
    out = tmp_path / "out"
    assert command.main(["study", "--out", str(out)]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert data.files.card("fashion_mnist")["restore"] in error
    assert not out.exists()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"17_study": {}}', '{"17_study": []}', '{"other": {"values": 1}}'])
def test_damaged_results_are_one_error_that_names_the_file(tiny, tmp_path, capsys, text):
    path = tmp_path / "results.json"
    path.write_text(text)
    assert command.main(["study", "--resume", "--out", str(tmp_path)]) == 1
    assert f"error: {path} is no result of this study" in capsys.readouterr().err
    assert path.read_text() == text


@pytest.mark.parametrize("changed", [{"machine": {"cpu": "Another"}}, {"recipe": {"lr": 1.0}}])
def test_rows_of_another_machine_or_recipe_are_not_mixed_with_new_ones(tiny, tmp_path, capsys, changed):
    run.study(folder=tmp_path)
    path = tmp_path / "results.json"
    entry = json.loads(path.read_text())["17_study"] | changed
    path.write_text(json.dumps({"17_study": entry}))
    for arguments in (["--resume"], ["--only", "b"]):
        assert command.main(["study", *arguments, "--out", str(tmp_path)]) == 1
        assert "come from another machine, other versions or another recipe" in capsys.readouterr().err
    assert command.main(["study", "--out", str(tmp_path)]) == 0  # nothing stays


def test_what_there_is_not_is_an_error_that_lists_what_there_is(tiny):
    with pytest.raises(KeyError, match=r"no point c; there are: a_before, a, b"):
        run.study(only=["c"])
    with pytest.raises(ValueError, match="at least one seed, got 0"):
        run.study(seeds=0)
    with pytest.raises(KeyError, match=r"no model 'resnet'; there are: .*global_90"):
        study.load("resnet")


# How a model is built


@pytest.mark.parametrize("name", ["physical_70", "low_rank", "filters_50", "student_teacher"])
def test_a_model_is_built_from_its_description(name):
    described = study.read_card(name)["structure"]
    model = shipped.build(described, np.random.default_rng(0))
    assert shipped.structure(model) == described
    assert model(Tensor(np.zeros((2, 1, 28, 28), np.float32))).shape == (2, 10)


def test_the_reference_cnn_is_built_as_the_zoo_builds_it():
    reference = zoo.load("reference_cnn")
    described = shipped.structure(reference)
    assert described == {"filters": [16, 32, 64], "linear": [[576, 128], [128, 10]]}
    assert repr(shipped.build(described)) == repr(zoo.reference_cnn())


# Smaller still


@pytest.mark.parametrize("name", ["adaptive_90", "global_90"])
def test_a_sparse_model_in_8_bits_loses_no_more_and_its_file_is_smaller_than_either_alone(name, tmp_path):
    images = data.fashion_mnist("train").images[:256]

    def saved(model: nn.Sequential) -> tuple[int, float]:
        rounded = INT8Quantizer().calibrate(model, images, progress=False).convert(model)
        rounded.save(tmp_path / "rounded")
        return (tmp_path / "rounded").stat().st_size, run.percent(rounded)

    sparse, dense = study.load(name), zoo.load("reference_cnn")
    size, percent = saved(sparse)
    assert percent >= run.percent(sparse) - 0.1
    assert size < min(saved(dense)[0], study.read_card(name)["bytes"])
