"""The published accuracies: found again where that takes a second, and the aims that they reach."""

import numpy as np
import pytest

from tests.bench import quantized_accuracy as study
from tinytorch.book.results import measured, rows
from tinytorch.quantization import MSEObserver

PUBLISHED = {name.partition("/")[2]: row for name, row in rows().items() if name.startswith("16_accuracy/")}
CLOSE_CALLS = 0.05  # percent: another BLAS may turn a few of the calibration's sums


@pytest.mark.parametrize("name", ["w8a8", "w4a8_mse", "w3a8_per_tensor", "w4a4_mse"])
def test_a_published_accuracy_is_found_again(name):
    (trial,) = (trial for known, _, trial in study.trials() if known == name)
    row = measured(f"16_accuracy/{name}")
    assert row.low - CLOSE_CALLS <= trial(0) <= row.high + CLOSE_CALLS


def test_every_row_of_the_study_is_published():
    expected = {"fp32", *(name for name, _, _ in study.trials())}
    expected |= {f"w{bits}a{bits}_recovered{kind}" for bits in (4, 3) for kind in ("", "_teacher")}
    assert PUBLISHED.keys() == expected
    assert {row.unit for row in PUBLISHED.values()} == {"%"}
    assert all(row.low <= row.value <= row.high for row in PUBLISHED.values())


def test_eight_bits_are_within_a_tenth_of_a_point_of_float32():
    assert abs(PUBLISHED["w8a8"].value - PUBLISHED["fp32"].value) <= 0.1
    assert PUBLISHED["fp32"].value == pytest.approx(measured("zoo-reference_cnn/accuracy").value, abs=CLOSE_CALLS)


@pytest.mark.parametrize("bits", [4, 3])
def test_training_with_a_teacher_recovers_at_least_half_at_every_seed(bits):
    name = f"w{bits}a{bits}"
    assert PUBLISHED[f"{name}_recovered_teacher"].low >= study.RECOVERED
    untrained = max(PUBLISHED[f"{name}_{observer}"].value for observer in ("minmax", "mse"))
    half_way = (PUBLISHED["fp32"].value + untrained) / 2
    assert PUBLISHED[f"{name}_qat_teacher"].low >= half_way


def test_a_quick_run_measures_one_seed_and_trains_nothing(monkeypatch):
    seeds = []
    monkeypatch.setattr(study, "after_training", lambda seed, **options: seeds.append(seed) or 50.0)
    monkeypatch.setattr(study, "in_training", pytest.fail)
    monkeypatch.setattr(study, "percent", lambda model: 90.0)
    found = study.accuracy_16(np.random.default_rng(0), budget=1.0)
    assert set(seeds) == {0}
    assert found["fp32"]["value"] == 90.0
    assert found["w3a3_mse"]["value"] == 50.0


def test_a_share_is_of_what_the_better_observer_lost(monkeypatch):
    """80 of 90 percent are left by the better one: training to 86 brings back 60 % of it."""

    def untrained(seed, **options):
        return 80.0 if options.get("observer") is MSEObserver else 60.0

    monkeypatch.setattr(study, "on_all_cores", study.one_by_one)
    monkeypatch.setattr(study, "after_training", untrained)
    monkeypatch.setattr(study, "in_training", lambda seed, bits, teacher: 86.0 + seed if teacher else 83.0 + seed)
    monkeypatch.setattr(study, "percent", lambda model: 90.0)
    found = study.accuracy_16(np.random.default_rng(0), budget=100.0)
    taught, labels = found["w4a4_recovered_teacher"], found["w4a4_recovered"]
    assert [taught[key] for key in ("low", "value", "high")] == [60, 70, 80]
    assert [labels[key] for key in ("low", "value", "high")] == [30, 40, 50]
    assert taught["what"].endswith("(aim at least 50: reached)")
    assert labels["what"].endswith("(aim at least 50: undecided)")
