"""The processor's name, where the system tells it and where it does not."""

import platform
import subprocess
import sys

import pytest

from tinytorch.kernels import machine


@pytest.mark.parametrize("error", [FileNotFoundError("sysctl"), subprocess.TimeoutExpired("sysctl", 5)])
def test_a_mac_that_does_not_tell_its_processor_is_no_error(monkeypatch, tmp_path, error):
    def fails(*args, **options):
        raise error

    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(machine, "_LINUX", tmp_path / "nothing")
    monkeypatch.setattr(subprocess, "run", fails)
    assert machine.cpu_name() == (platform.processor() or platform.machine())


def test_linux_names_the_processor_or_at_least_its_kind(monkeypatch, tmp_path):
    info = tmp_path / "cpuinfo"
    monkeypatch.setattr(machine, "_LINUX", info)
    monkeypatch.setattr(sys, "platform", "linux")
    info.write_text("processor\t: 0\nmodel name\t: A Processor @ 3 GHz\nflags\t: x\nmodel name\t: A Processor\n")
    assert machine.cpu_name() == "A Processor @ 3 GHz"
    info.write_text("processor\t: 0\nBogoMIPS\t: 50.00\n")  # as on Arm
    assert machine.cpu_name() == (platform.processor() or platform.machine())
