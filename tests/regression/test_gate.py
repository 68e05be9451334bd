"""The gate fails where kernels have lost their vectors; its baselines are frozen, scalar, and compute the same."""

import json
import subprocess
import sys

import numpy as np
import pytest

numba = pytest.importorskip("numba")

from tests.regression import cases, frozen, gate, lanes  # noqa: E402
from tinytorch import backend  # noqa: E402
from tinytorch.acceleration.assembly import inner_loops  # noqa: E402
from tinytorch.kernels.compiled import instructions, simd  # noqa: E402

LIMITS = json.loads(gate.LIMITS.read_text(encoding="utf-8"))
CHEAP = ("matmul", "softmax", "gelu", "layer_norm")  # to compile anew: seconds


# The proof


def test_the_gate_fails_without_simd_and_names_every_kernel():
    """They are three times slower than the limits allow and more: no machine is so busy that this passes."""
    command = [sys.executable, "-m", "tests.regression.gate", "--lanes", "1", "--only", *CHEAP]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    text = " ".join(done.stdout.split())
    for name in CHEAP:
        assert f"{name} is" in text
    assert text.count("has it lost its vectors?") == len(CHEAP)
    assert gate.ACCEPT in text


# The baselines


def test_the_baselines_are_those_that_the_limits_were_measured_with():
    assert gate.frozen_hash() == LIMITS["frozen"], "frozen.py never changes: undo it, or no old ratio means anything"


@pytest.mark.parametrize("name", cases.CASES)
def test_a_kernel_and_its_baseline_compute_the_same_and_the_baseline_has_no_vectors(name):
    case = cases.CASES[name](np.random.default_rng(1))
    with backend("numba"):
        np.testing.assert_allclose(case.ours(), case.frozen(), rtol=1e-4, atol=1e-4)
    made_of = {"decoder_step": (frozen.linear, frozen.one_query, frozen.gelu, frozen.layer_norm)}
    for function in made_of.get(name) or [getattr(frozen, name)]:
        (assembly,) = function.inspect_asm().values()
        assert max((loop.lanes for loop in inner_loops(assembly)), default=0) <= 1


def test_every_kernel_has_a_limit_for_each_width_of_vectors():
    assert LIMITS["limits"].keys() == cases.CASES.keys()
    paths = {path.name for path in instructions.PATHS if not path.name.startswith("arm")}
    for name, rows in LIMITS["limits"].items():
        assert rows.keys() == (paths if name == "int8_linear" else {"4", "8", "16"})
        assert min(rows.values()) > 1


# What the gate says


def ratios(monkeypatch, *values: float) -> None:
    left = list(values)
    monkeypatch.setattr(gate, "measure", lambda name, rng, seconds: left.pop(0))


@pytest.mark.parametrize(("measured", "lost"), [((10.0,), False), ((9.9, 10.0), False), ((9.9, 9.9), True)])
def test_a_kernel_is_lost_only_if_it_falls_short_twice(monkeypatch, measured, lost):
    ratios(monkeypatch, *measured)
    (speed,) = gate.check(["gelu"], 16, {"gelu": {"16": 10.0, "8": 1.0}})
    assert (speed.ratio, speed.lost) == (measured[-1], lost)


def test_the_limit_is_that_of_the_lanes(monkeypatch):
    ratios(monkeypatch, 5.0)
    (speed,) = gate.check(["gelu"], 8, {"gelu": {"16": 10.0, "8": 4.0}})
    assert (speed.limit, speed.lost) == (4.0, False)


def test_a_path_that_nobody_measured_is_held_to_the_generic_one(monkeypatch):
    ratios(monkeypatch, 5.0, 5.0)
    monkeypatch.setattr("tinytorch.kernels.dot._forced", "arm-sdot")
    (speed,) = gate.check(["int8_linear"], 4, {"int8_linear": {"avx2": 20.0, "generic": 8.0}})
    assert (speed.limit, speed.lost) == (8.0, True)


def test_accepting_writes_half_of_the_ratio_for_these_lanes_alone(monkeypatch, tmp_path):
    path = tmp_path / "limits.json"
    path.write_text(json.dumps({"frozen": "", "limits": {"gelu": {"16": 10.0, "8": 4.0}, "conv": {"16": 3.0}}}))
    monkeypatch.setattr(gate, "LIMITS", path)
    gate.write([gate.Speed("gelu", "16", 31.0, 10.0)])
    assert json.loads(path.read_text()) == {
        "frozen": gate.frozen_hash(),
        "limits": {"gelu": {"16": 15.5, "8": 4.0}, "conv": {"16": 3.0}},
    }


# What goes wrong


def test_the_speed_of_a_wrong_answer_is_not_measured(monkeypatch):
    right = np.ones(3, np.float32)
    monkeypatch.setitem(cases.CASES, "gelu", lambda rng: cases.Case(lambda: right + np.float32(0.01), lambda: right))
    monkeypatch.setattr(gate, "Timer", pytest.fail)
    with pytest.raises(AssertionError, match="gelu"):
        gate.measure("gelu", np.random.default_rng(0), 0.1)


def test_unknown_kernels_are_refused(capsys):
    with pytest.raises(SystemExit):
        gate.main(["--only", "fft"])
    assert "there is no kernel fft; there are: matmul, conv" in capsys.readouterr().err


def test_what_is_measured_without_simd_is_never_accepted(monkeypatch, capsys):
    monkeypatch.setattr(gate, "compile_for", lambda lanes, folder: None)
    monkeypatch.setattr(gate, "write", pytest.fail)
    with pytest.raises(SystemExit):
        gate.main(["--lanes", "1", "--write"])
    assert "is no limit" in capsys.readouterr().err


def test_changed_baselines_are_refused(monkeypatch, capsys, tmp_path):
    changed = tmp_path / "frozen.py"
    changed.write_text("pass")
    monkeypatch.setattr(gate, "FROZEN", changed)
    with pytest.raises(SystemExit):
        gate.main(["--only", "gelu"])
    assert "frozen.py has changed: undo that" in capsys.readouterr().err


def test_lanes_are_chosen_before_kernels_are_imported(tmp_path):
    assert lanes.host_lanes() == simd.LANES
    with pytest.raises(RuntimeError, match="in a new process"):
        lanes.compile_for(4, tmp_path)
