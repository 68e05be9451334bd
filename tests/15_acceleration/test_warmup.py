"""Warming up: two processes share the work, others wait for them, and nothing is left behind."""

import subprocess
import sys

import numpy as np
import pytest

from tinytorch.kernels import activation, machine, together, warmup
from tinytorch.kernels.compiled import jit

HOLDER = """
    import sys
    from pathlib import Path
    from tinytorch.kernels.together import alone

    with alone(Path(sys.argv[1])):
        print("in", flush=True)
        sys.stdin.read()
"""


@pytest.fixture
def started(monkeypatch):
    """Return the list of helpers that were started, on a machine of two cores."""
    helpers, real = [], subprocess.Popen
    monkeypatch.setattr(together, "usable_cores", lambda: 2)
    monkeypatch.setattr(subprocess, "Popen", lambda *a, **k: helpers.append(real(*a, **k)) or helpers[-1])
    return helpers


@pytest.fixture
def one_kernel(monkeypatch, tmp_path):
    """Let there be one kernel to warm up, and no mark that it was done."""
    monkeypatch.setattr(warmup, "calls", lambda: iter([(activation.relu, (np.ones(8, np.float32),))]))
    monkeypatch.setattr(jit, "file_for_all", lambda name: tmp_path / name)
    return tmp_path


def test_a_lock_is_taken_from_a_process_that_is_killed(tmp_path):
    path = tmp_path / "lock"
    code = "\n".join(line[4:] for line in HOLDER.splitlines())
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout.readline() == "in\n"
        with path.open("ab") as file:
            assert not together._take(file)
            holder.kill()
            holder.wait()
            assert together._take(file)


def test_a_process_waits_for_the_lock_but_not_for_ever(tmp_path, monkeypatch):
    answers, naps = [False, False, True, False], []
    monkeypatch.setattr(together, "_take", lambda file: answers.pop(0))
    monkeypatch.setattr(together.time, "sleep", naps.append)
    with together.alone(tmp_path / "lock"):
        assert naps == [together._POLL] * 2
    monkeypatch.setattr(together, "_PATIENCE", -1.0)
    with together.alone(tmp_path / "lock"):
        assert answers == []


@pytest.mark.parametrize("trouble", ["no folder", "no locks"])
def test_where_nothing_can_be_locked_the_work_goes_on(tmp_path, monkeypatch, trouble):
    def refuse(file):
        raise OSError(37, "no locks available")

    monkeypatch.setattr(together, "_take", refuse)
    done = []
    with together.alone(tmp_path / "missing" / "lock" if trouble == "no folder" else tmp_path / "lock"):
        done.append(True)
    assert done


@pytest.mark.parametrize("error", [None, KeyboardInterrupt])
def test_the_helper_ends_with_the_block_also_by_ctrl_c(started, error):
    try:
        with together.helped_by(warmup.from_the_end):
            assert started[0].poll() is None
            if error:
                raise error
    except KeyboardInterrupt:
        assert error
    assert [helper.poll() is not None for helper in started] == [True]


def test_the_helper_finds_this_package_and_does_what_it_is_told(started):
    with together.helped_by(machine.usable_cores):
        assert started[0].wait(timeout=300) == 0


def test_on_one_core_there_is_no_helper(started, monkeypatch):
    monkeypatch.setattr(together, "usable_cores", lambda: 1)
    with together.helped_by(warmup.from_the_end):
        pass
    assert started == []


def test_only_the_first_warmup_is_helped(started, one_kernel):
    warmup.warmup()
    assert (one_kernel / "warm").exists()
    assert len(started) == 1
    warmup.warmup()
    assert len(started) == 1


def test_who_waited_for_the_lock_finds_all_done(started, one_kernel, monkeypatch):
    def take(file):
        (one_kernel / "warm").touch()  # by the process that had the lock
        return True

    monkeypatch.setattr(together, "_take", take)
    warmup.warmup()
    assert started == []
