"""`python -m tinytorch.profiling`: what it prints, what it refuses, and with which exit code."""

import json
import sys

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from tinytorch import nn, zoo
from tinytorch.acceleration import Roofline
from tinytorch.profiling import workload
from tinytorch.profiling.__main__ import main
from tinytorch.profiling.bottlenecks import find as bottlenecks
from tinytorch.profiling.profiler.context import ProfilerContext

FACTORIES = """
import numpy as np
from threadpoolctl import threadpool_info

from tinytorch import Tensor, nn
from tinytorch.autograd import is_grad_enabled

rng = np.random.default_rng(0)

def mlp():
    return nn.Sequential(nn.Linear(6, 4, rng=rng), nn.ReLU(), nn.Linear(4, 3, rng=rng))

def images():
    return nn.Sequential(nn.Conv2d(2, 3, 3, rng=rng), nn.Flatten(), nn.Linear(12, 2, rng=rng))

def gpt():
    return nn.GPT(7, 8, 1, 2, 5, rng=rng)

def norm():
    return nn.LayerNorm(4)

def pair():
    return nn.LayerNorm(4), Tensor(np.ones((2, 4), np.float32))

def relu():
    return nn.ReLU(), (Tensor(np.ones((2, 4), np.float32)),)

class Spy(nn.Module):
    seen = []

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(np.ones(4, np.float32))

    def forward(self, x):
        threads = {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}
        self.seen.append((self.training, is_grad_enabled(), threads))
        return x * self.weight

def spy():
    return Spy(), Tensor(np.ones((2, 4), np.float32))

def broken():
    raise ValueError("no\\nweights")

def number():
    return 3
"""


@pytest.fixture(autouse=True)
def hand_made_machine(monkeypatch):
    """No test measures this machine."""
    monkeypatch.setattr(bottlenecks, "_measured_roofline", lambda: Roofline(100e9, 20e9))


@pytest.fixture
def made(tmp_path, monkeypatch) -> str:
    """A module of factories that can be imported."""
    (tmp_path / "made_for_profiling.py").write_text(FACTORIES)
    (tmp_path / "made_wrong.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(tmp_path)
    yield "made_for_profiling"
    sys.modules.pop("made_for_profiling", None)


def run(capsys, *argv: str) -> tuple[int, str, str]:
    code = main([*argv, "--steps", "2", "--backend", "numpy"])
    said = capsys.readouterr()
    return code, said.out, said.err


def test_times_and_bottlenecks_of_a_factorys_model_are_shown(made, capsys):
    code, out, _ = run(capsys, f"{made}:mlp", "--batch", "3")
    assert code == 0
    assert "made_for_profiling:mlp: 43 parameters, inference on (3, 6); backend numpy, one thread, 2 steps" in out
    assert "nn.Sequential" in out
    assert "Bottlenecks: " in out
    assert "Linear 3x6, 4x6" in out
    assert "Work by module" not in out


def test_a_step_of_training_has_derivatives_and_an_optimizer(made, capsys):
    code, out, _ = run(capsys, f"{made}:mlp", "--train", "--rows", "40")
    assert code == 0
    for name in ("LinearBackward", "CrossEntropyBackward", "AdamW.step", "between derivatives", "step"):
        assert name in out


@pytest.mark.parametrize(
    ("factory", "options", "shape"),
    [
        ("mlp", (), (8, 6)),
        ("mlp", ("--shape", "5,6"), (8, 5, 6)),
        ("images", ("--shape", "2,4,4", "--batch", "3"), (3, 2, 4, 4)),
        ("gpt", ("--batch", "2"), (2, 5)),
        ("gpt", ("--batch", "2", "--length", "4"), (2, 4)),
        ("pair", (), (2, 4)),
        ("relu", (), (2, 4)),
    ],
)
def test_the_input_is_found_or_given(made, capsys, factory, options, shape):
    code, out, _ = run(capsys, f"{made}:{factory}", *options)
    assert code == 0
    assert f"inference on {shape};" in out


@pytest.mark.parametrize("train", [False, True])
def test_modes_fit_what_is_profiled_and_one_thread_computes(made, capsys, train):
    """The roofs are those of one thread."""
    with threadpool_limits(limits=2, user_api="blas"):
        assert run(capsys, f"{made}:spy", *["--train"] * train)[0] == 0
    seen = sys.modules[made].Spy.seen
    assert len(seen) == 1 + 2 + 2  # to compile, to warm up, to record
    assert all(modes[:2] == (train, train) and modes[2] <= {1} for modes in seen)


@pytest.mark.parametrize("name", zoo.RECIPES)
def test_every_model_of_the_zoo_has_an_input(name):
    work = workload.workload(name, batch=1)
    assert len(work.inputs[0]) == 1
    assert isinstance(work.model, nn.Module)
    assert work.model(*work.inputs).data.dtype == np.float32


@pytest.mark.parametrize(
    ("argv", "code", "message"),
    [
        (["nobody"], 2, "no model 'nobody': the zoo has reference_cnn, char_gpt, anomaly_autoencoder, and MODULE:FAC"),
        (["nobody:"], 2, "no model 'nobody:'"),
        (["no_such_module:f"], 1, "cannot be imported: ModuleNotFoundError: No module named 'no_such_module'"),
        (["made_wrong:f"], 1, "cannot be imported: ZeroDivisionError"),
        (["made_for_profiling:nothing"], 1, "cannot be imported: AttributeError"),
        (["made_for_profiling:broken"], 1, "made_for_profiling:broken failed: ValueError: no weights"),
        (["made_for_profiling:number"], 1, "returned int: MODULE:FACTORY is a function"),
        (["made_for_profiling:images"], 2, "begins with Conv2d(2, 3, kernel_size=3"),
        (["made_for_profiling:images"], 2, "--shape 2,H,W (without the batch)"),
        (["made_for_profiling:norm"], 2, "LayerNorm: say what it takes with --shape"),
        (["made_for_profiling:images", "--shape", "1,4,4"], 1, "failed in its first step: ValueError: Conv2d takes 2"),
        (["made_for_profiling:pair", "--batch", "2"], 2, "gives its own inputs: --batch"),
        (["made_for_profiling:mlp", "--length", "2"], 2, "--length is for a GPT, this is a Sequential: use --shape"),
        (["made_for_profiling:gpt", "--length", "6"], 2, "--length, at most 5"),
        (["made_for_profiling:gpt", "--shape", "6"], 2, "a GPT takes --batch and --length"),
        (["made_for_profiling:relu", "--train"], 2, "no parameters to train"),
        (["reference_cnn", "--batch", "0"], 2, "--batch must be at least 1, got 0"),
        (["reference_cnn", "--shape", "1,0,28"], 2, "--shape must be at least 1, got 0"),
        (["reference_cnn", "--rows", "0"], 2, "--rows must be at least 1, got 0"),
    ],
)
def test_what_cannot_be_profiled_is_said_in_one_line(made, capsys, argv, code, message):
    assert run(capsys, *argv)[0] == code
    main([*argv, "--backend", "numpy"])
    out, err = capsys.readouterr()
    assert (out, err.count("\n"), err.startswith("error: ")) == ("", 1, True)
    assert message in err


@pytest.mark.parametrize("argv", [["reference_cnn", "--backend", "cuda"], ["reference_cnn", "--shape", "1,x"], []])
def test_a_line_that_cannot_be_parsed_is_argparses(argv, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(argv)
    assert stopped.value.code == 2
    assert "usage: python -m tinytorch.profiling" in capsys.readouterr().err


def test_a_trace_that_cannot_be_written_is_refused_before_any_work(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("tinytorch.profiling.__main__.workload", None)  # to be called is an error
    for path in (tmp_path, tmp_path / "no folder" / "trace.json"):
        code, out, err = run(capsys, "reference_cnn", "--trace", str(path))
        assert (code, out) == (1, "")
        assert err.startswith("error: the trace cannot be written")


def test_the_trace_is_json_with_every_layer(made, tmp_path, capsys):
    path = tmp_path / "trace.json"
    code, out, _ = run(capsys, f"{made}:mlp", "--trace", str(path))
    assert code == 0
    assert f"wrote {path}" in out
    names = [event["name"] for event in json.loads(path.read_text())["traceEvents"]]
    assert names.count("ReLU") == 4  # module and operation, in two steps
    assert sorted(p.name for p in tmp_path.iterdir() if p.suffix == ".json") == ["trace.json"]


def test_after_ctrl_c_nothing_is_half_written(made, tmp_path, monkeypatch, capsys):
    def interrupted(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(ProfilerContext, "step", interrupted)
    code, out, err = run(capsys, f"{made}:mlp", "--trace", str(tmp_path / "trace.json"))
    assert (code, out) == (130, "")
    assert "stopped" in err
    assert not list(tmp_path.glob("*trace*"))


def test_work_by_module_is_shown_on_demand(made, capsys):
    code, out, _ = run(capsys, f"{made}:mlp", "--flops")
    assert code == 0
    assert "Work by module" in out
    assert "Bottlenecks: " not in out
    assert "Bottlenecks: " in run(capsys, f"{made}:mlp", "--flops", "--bottlenecks")[1]


def test_memory_of_a_step_is_shown_on_demand(made, capsys):
    pytest.importorskip("tinytorch.profiling.memory.profiler")
    code, out, _ = run(capsys, f"{made}:mlp", "--train", "--memory")
    assert code == 0
    assert "optimizer" in out


def test_without_numba_the_times_are_shown_and_bottlenecks_explained(made, monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    code, out, err = run(capsys, f"{made}:mlp")
    assert code == 0
    assert "nn.Sequential" in out
    assert "pip install" in err
    code, out, err = run(capsys, f"{made}:mlp", "--bottlenecks")
    assert (code, out) == (1, "")
    assert "pip install" in err


def test_the_backend_of_the_caller_is_back_afterwards(made, capsys):
    from tinytorch.kernels.backend import current_backend

    before = current_backend()
    main([f"{made}:mlp", "--steps", "1", "--backend", "naive"])
    assert "backend naive" in capsys.readouterr().out
    assert current_backend() == before
