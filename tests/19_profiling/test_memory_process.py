"""The process's high-water mark."""

import subprocess
import sys
import types
from pathlib import Path

import pytest

from tinytorch.profiling.memory import process
from tinytorch.profiling.memory.process import high_water

MIB = 1 << 20


@pytest.mark.skipif(sys.platform == "win32", reason="needs psutil there")
def test_it_rises_with_memory_that_is_written_to_and_stays_when_that_is_freed():
    code = """
from tinytorch.profiling.memory.process import high_water
before = high_water().nbytes
held = b"x" * (64 << 20)
risen = high_water().nbytes
del held
print(before, risen, high_water().nbytes)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    before, risen, after = map(int, run.stdout.split())
    assert risen - before > 60 * MIB
    assert after - before > 60 * MIB


def test_a_large_process_does_not_lend_its_mark_to_one_that_it_starts():
    if high_water().source != "VmHWM in /proc/self/status":
        pytest.skip("only Linux tells")
    code = "from tinytorch.profiling.memory.process import high_water; print(high_water().nbytes)"
    held = b"x" * (256 * MIB)
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    del held
    assert int(run.stdout) < 200 * MIB


def test_linux_tells_it_in_kib(monkeypatch):
    monkeypatch.setattr(Path, "read_text", lambda self: "Name:\tpython\nVmHWM:\t   1234 kB\nVmRSS:\t 5 kB\n")
    assert high_water() == (1234 * 1024, "VmHWM in /proc/self/status")


@pytest.fixture
def _no_proc(monkeypatch):
    def missing(self, *args, **options):
        raise FileNotFoundError(self)

    monkeypatch.setattr(Path, "read_text", missing)


@pytest.mark.usefixtures("_no_proc")
@pytest.mark.parametrize(("platform", "unit"), [("linux", 1024), ("freebsd14", 1024), ("darwin", 1)])
def test_getrusage_is_read_in_the_unit_of_the_system(monkeypatch, platform, unit):
    resource = types.SimpleNamespace(RUSAGE_SELF=0, getrusage=lambda who: types.SimpleNamespace(ru_maxrss=1000))
    monkeypatch.setattr(process.sys, "platform", platform)
    monkeypatch.setitem(sys.modules, "resource", resource)
    assert high_water() == (1000 * unit, "ru_maxrss of getrusage")


@pytest.mark.usefixtures("_no_proc")
def test_windows_is_asked_through_psutil(monkeypatch):
    info = types.SimpleNamespace(peak_wset=12345)
    psutil = types.SimpleNamespace(Process=lambda: types.SimpleNamespace(memory_info=lambda: info))
    monkeypatch.setattr(process.sys, "platform", "win32")
    monkeypatch.setitem(sys.modules, "psutil", psutil)
    assert high_water() == (12345, "peak working set")


@pytest.mark.usefixtures("_no_proc")
@pytest.mark.parametrize(("platform", "module"), [("win32", "psutil"), ("emscripten", "resource")])
def test_a_system_that_does_not_tell_says_why(monkeypatch, platform, module):
    monkeypatch.setattr(process.sys, "platform", platform)
    monkeypatch.setitem(sys.modules, module, None)
    nbytes, source = high_water()
    assert nbytes is None
    assert platform in source
    assert module in source
