"""Whatever the process of a submission does, its evaluator gets outputs or a rejection, and no process is left."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from tinytorch import nn
from tinytorch.benchmarks.tinymlperf import file
from tinytorch.benchmarks.tinymlperf import sandbox as sandboxes
from tinytorch.benchmarks.tinymlperf.execution import Program
from tinytorch.benchmarks.tinymlperf.export import export
from tinytorch.benchmarks.tinymlperf.limits import Limits
from tinytorch.benchmarks.tinymlperf.rejection import Code, Rejected
from tinytorch.benchmarks.tinymlperf.sandbox import Sandbox, SandboxError

linux = pytest.mark.skipif(sys.platform != "linux", reason="others have no such signals and limits, or no /proc")

X = np.array([[1.0, -2.0]], np.float32)


@pytest.fixture
def sandbox(tmp_path, monkeypatch):
    """Make a sandbox for a program of `hostile_worker`."""
    monkeypatch.syspath_prepend(Path(__file__).parent)

    def make(does="[2 * x]", **limits):
        (tmp_path / "submission").write_text(does)
        return Sandbox(tmp_path / "submission", Limits(**limits), module="hostile_worker")

    return make


def says(sandbox):
    """What the program returned by `text`."""
    return json.loads(bytes(sandbox.run({"x": X})[0].astype(np.uint8)))


def assert_ends(pid):
    """A process that was killed may take a moment, and stays as a zombie where nobody waits for it.

    One that ends when it has used its second of the processor may take many more where others use it too.
    """
    for _ in range(12_000):
        try:
            with open(f"/proc/{pid}/stat") as file:
                state = file.read().rsplit(")", 1)[1].split()[0]
        except OSError:
            return
        if state in "ZX":
            return
        time.sleep(0.01)
    raise AssertionError(f"process {pid} still runs")


@pytest.mark.parametrize("shared", [True, False])
def test_a_sandbox_answers_many_requests_each_with_its_own_inputs(sandbox, shared, monkeypatch):
    """With and without memory that both processes share."""
    if not shared:
        monkeypatch.setattr(sandboxes, "_shared_memory", list)
    rng = np.random.default_rng(0)
    with sandbox() as s:
        for n in (0, 1, 7, 5000, 300_000):
            x = rng.standard_normal((n, 3), np.float32)
            (found,) = s.run({"x": x}, [(n, 3)])
            np.testing.assert_array_equal(found, 2 * x)
        s.run({"x": -x})
        np.testing.assert_array_equal(found, 2 * x)  # what was returned stays
        x = np.asfortranarray(x)[::2]  # any layout
        np.testing.assert_array_equal(s.run({"x": x})[0], 2 * x)


def test_a_run_and_its_time_come_from_the_same_request(sandbox):
    with sandbox("(time.sleep(0.05), [x])[1]") as s:
        seconds, outputs = s.timed({"x": X})
        assert seconds >= 0.05  # sleeping may take longer, never shorter
        np.testing.assert_array_equal(outputs[0], X)
        assert s.timed({"x": X}).seconds >= 0.05


def test_a_language_model_remembers_from_step_to_step_until_it_is_reset(sandbox):
    with sandbox() as s:
        s.reset(3)
        assert s.step(np.array([[1, 2]])).outputs[0] == [6.0]
        assert s.step(np.array([[4]]), [(1,)]).outputs[0] == [10.0]
        s.reset(1)
        assert s.step(np.array([[1]])).outputs[0] == [2.0]
        assert s.generate(np.array([[3, 4]]), 2, [(1, 2)]).outputs[0].tolist() == [[7.0, 7.0]]


ENDS = {
    "it sleeps": ("time.sleep(1000)", Code.TIMEOUT),
    "it computes without end": ("all(True for _ in iter(int, 1))", Code.TIMEOUT),
    "it stops answering": ("deaf()", Code.CRASHED),
    "it exits": ("os._exit(0)", Code.CRASHED),
    "it exits politely": ("sys.exit(3)", Code.CRASHED),
    "it reads where nothing is": ("ctypes.string_at(0)", Code.CRASHED),
    "it kills itself": ("os.kill(os.getpid(), 9)", Code.OUT_OF_MEMORY),  # as the system does
    "it aborts": ("os.abort()", Code.CRASHED),
    "it writes zeros into the protocol": ("write_to_every_pipe(bytes(1000))", Code.CRASHED),
    "it announces terabytes": ("write_to_every_pipe(b'\\xff' * 64)", Code.CRASHED),
    "it announces shared memory that is not there": (
        "write_to_every_pipe(struct.pack('<3Q', 2, 0, 2**26 + 1) + b'{}')",
        Code.CRASHED,
    ),
    "it answers what was not asked": (
        "write_to_every_pipe(struct.pack('<3Q', 14, 0, 0) + b'{\"arrays\": []}')",
        Code.CRASHED,
    ),
}


@linux
@pytest.mark.parametrize("name", ENDS)
def test_a_process_that_ends_or_does_not_is_rejected_and_can_be_started_anew(sandbox, name):
    does, code = ENDS[name]
    s = sandbox(does, run_seconds=1.5 if code == Code.TIMEOUT else 60.0)
    for _ in range(2 if name == "it exits" else 1):
        with s:
            pid = s._process.pid
            with pytest.raises(Rejected) as refused:
                s.run({"x": X})
            assert refused.value.code == code, refused.value
            with pytest.raises(SandboxError, match="there is no process"):
                s.run({"x": X})
        assert_ends(pid)


STAYS = {
    "it takes 10 GB": ("[np.ones(10**10, np.uint8)]", Code.OUT_OF_MEMORY, "smaller"),
    "it fails": ("1 / 0", Code.CRASHED, "ZeroDivisionError"),
    "it recurses without end": ("(lambda f: f(f))(lambda f: f(f))", Code.CRASHED, "RecursionError"),
    "it is rejected late": ("refuse()", Code.BAD_VALUE, "a scale is zero"),
    "another shape": ("[x.T]", Code.WRONG_OUTPUT, r"are \(2, 1\): the task expects \(1, 2\)"),
    "two outputs": ("[x, x]", Code.WRONG_OUTPUT, r"\(1, 2\), \(1, 2\): the task expects \(1, 2\)"),
    "no output": ("[]", Code.WRONG_OUTPUT, r"are none: the task expects \(1, 2\)"),
    "other numbers": ("[x.astype(np.float64)]", Code.WRONG_OUTPUT, "output 0 is float64: the task expects float32"),
    "more than it may": ("[np.zeros(2**25, np.float32)]", Code.WRONG_OUTPUT, "have 134,217,728 bytes"),
    "NaN": ("[x * np.float32('nan')]", Code.WRONG_OUTPUT, "holds NaN"),
    "infinity": ("[x + np.float32('inf')]", Code.WRONG_OUTPUT, "holds NaN or an infinite"),
    "objects": ("[np.array([None])]", Code.CRASHED, "arrays of object are not sent"),
}


@linux
@pytest.mark.parametrize("name", STAYS)
def test_what_a_run_does_wrong_is_told_and_the_process_stays(sandbox, name):
    does, code, message = STAYS[name]
    with sandbox(does) as s:
        for _ in range(2):
            with pytest.raises(Rejected, match=message) as refused:
                s.run({"x": X}, [(1, 2)])
            assert refused.value.code == code


@linux
@pytest.mark.parametrize(
    ("does", "code"),
    [("refused", Code.CYCLE), ("slow to load", Code.TIMEOUT), ("memory taken at once", Code.OUT_OF_MEMORY)],
)
def test_a_submission_that_cannot_be_loaded_is_rejected_on_entering(sandbox, does, code):
    s = sandbox(does, start_seconds=4.0 if code == Code.TIMEOUT else 120.0)
    with pytest.raises(Rejected) as refused, s:
        pass
    assert refused.value.code == code, refused.value


def test_what_a_program_prints_does_no_harm(sandbox):
    with sandbox("(print('x' * 10**5), os.write(1, bytes(10**5)), [x])[2]") as s:
        for _ in range(3):
            np.testing.assert_array_equal(s.run({"x": X})[0], X)
    assert "xxx" in s.log or "\0\0" in s.log


@linux
def test_the_process_has_no_secrets_one_thread_an_empty_folder_and_the_systems_limits(sandbox, monkeypatch):
    monkeypatch.setenv("SECRET_TOKEN", "abc")
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    with sandbox("[text([dict(os.environ), os.getcwd(), os.listdir('.'), limits(), sys.path])]") as s:
        environment, folder, listed, limits, path = says(s)
    assert "abc" not in json.dumps(environment)
    assert environment["OMP_NUM_THREADS"] == environment["OPENBLAS_NUM_THREADS"] == "1"
    assert not os.path.exists(folder)  # by now
    assert listed == ["log"]
    assert folder not in path
    assert limits["RLIMIT_CORE"] == 0
    assert limits["RLIMIT_NPROC"] == 0
    assert 0 < limits["RLIMIT_CPU"] < 200
    assert 0 < limits["RLIMIT_FSIZE"] < 2**30
    assert 2**31 < limits["RLIMIT_AS"] < 2**34


@linux
def test_the_process_starts_no_other_or_at_least_none_that_survives_it(sandbox):
    """The system counts no processes of a superuser."""
    with sandbox("[text(spawn())]") as s:
        if os.getuid() != 0:
            with pytest.raises(Rejected, match="BlockingIOError"):
                s.run({"x": X})
            return
        pid = says(s)
        os.kill(pid, 0)  # it runs
    assert_ends(pid)


@linux
def test_a_sandbox_leaves_no_file_thread_or_folder_of_its_own(sandbox, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    found = []
    for does in ("[x]", "[x]", "os.abort()", "refused", "[x]"):
        s = sandbox(does)
        with contextlib.suppress(Rejected), s:
            s.run({"x": X})
        found.append(
            (len(os.listdir("/proc/self/fd")), threading.active_count(), len(list(tmp_path.glob("tinymlperf*"))))
        )
    assert len(set(found)) == 1
    assert found[0][2] == 0


def test_a_submission_is_opened_and_run_in_there(tmp_path):
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 10, rng=np.random.default_rng(0)))
    path = tmp_path / "submission.safetensors"
    submission = export(model, "image-classification")
    submission.save(path)
    name = submission.graph.inputs[0].name
    x = np.random.default_rng(1).standard_normal((5, 1, 28, 28), np.float32)
    with Sandbox(path) as s:
        (found,) = s.run({name: x}, [(5, 10)])
    np.testing.assert_array_equal(found, Program(submission.graph, submission.arrays).run({name: x})[0])


def test_what_is_wrong_with_a_file_is_told_on_entering(tmp_path):
    path = tmp_path / "cut.safetensors"
    file.write(path, {}, {"w": np.zeros(9, np.float32)})
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(Rejected, match="ends at byte 36 of 35") as refused, Sandbox(path):
        pass
    assert refused.value.code == Code.OUT_OF_BOUNDS


EVALUATOR = """
import sys
import numpy as np
from tinytorch.benchmarks.tinymlperf.limits import Limits
from tinytorch.benchmarks.tinymlperf.sandbox import Sandbox

with Sandbox("submission", Limits(run_seconds=float(sys.argv[1])), module="hostile_worker") as s:
    print(s._process.pid, flush=True)
    s.run({"x": np.zeros(1, np.float32)})
"""


@linux
@pytest.mark.parametrize(
    ("number", "does", "seconds"),
    [(signal.SIGINT, "time.sleep(1000)", "60"), (signal.SIGKILL, "all(True for _ in iter(int, 1))", "1")],
)
def test_an_evaluator_that_is_interrupted_leaves_no_process_behind(sandbox, tmp_path, number, does, seconds):
    """Killed, it can end nothing: the process ends at its next request, or when its share of the processor is used."""
    runs = tmp_path / "runs"
    sandbox(f"(pathlib.Path({str(runs)!r}).touch(), {does})")
    evaluator = subprocess.Popen(
        [sys.executable, "-c", EVALUATOR, seconds],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    pid = int(evaluator.stdout.readline())
    while not runs.exists():
        assert evaluator.poll() is None
        time.sleep(0.01)
    evaluator.send_signal(number)
    evaluator.communicate()
    assert evaluator.returncode != 0
    assert_ends(pid)


def test_a_process_that_cannot_start_is_nobodys_submissions_fault(tmp_path):
    with (
        pytest.raises(SandboxError, match=r"(?s)did not start.*No module named") as failed,
        Sandbox(tmp_path, module="no.such.module"),
    ):
        pass
    assert not isinstance(failed.value, Rejected)


def test_a_sandbox_holds_one_process(sandbox):
    with sandbox() as s:
        with pytest.raises(SandboxError, match="in use"):
            s.__enter__()
        np.testing.assert_array_equal(s.run({"x": X})[0], 2 * X)
    with pytest.raises(SandboxError, match="there is no process"):
        s.run({"x": X})
    s.close()  # again: nothing happens
