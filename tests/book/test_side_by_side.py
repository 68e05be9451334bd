"""`pytest --nbval chapters` uses two cores by itself, and only where that helps."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest

from tinytorch.kernels.machine import usable_cores

CONFTEST = Path(__file__).parents[2] / "chapters" / "conftest.py"


@pytest.fixture
def conftest(monkeypatch):
    """Return the module, on a machine of four cores and outside of pytest-xdist's workers."""
    spec = importlib.util.spec_from_file_location("chapters_conftest", CONFTEST)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "usable_cores", lambda: 4)
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "8")
    return module


@pytest.fixture
def folder(tmp_path):
    """Return a folder like `chapters`: the conftest, and two small notebooks, of which the second is wrong."""
    shutil.copy(CONFTEST, tmp_path)
    for name, source in {"first": "1 + 1", "second": "1 + 2"}.items():
        cell = nbformat.v4.new_code_cell(source, execution_count=1)
        cell.outputs = [nbformat.v4.new_output("execute_result", {"text/plain": "2"}, execution_count=1)]
        nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / f"{name}.ipynb")
    return tmp_path


def processes(conftest, folder, *arguments, **options):
    """Return how many processes pytest is told to use, and how to share the work; None where it is told nothing."""
    known = {"nbval": True, "nbval_lax": False, "numprocesses": None, "dist": "no", "usepdb": False}
    option = SimpleNamespace(**known | {"collectonly": False} | options)
    config = SimpleNamespace(option=option, args=list(arguments), invocation_params=SimpleNamespace(dir=folder))
    conftest.pytest_cmdline_main(config)
    return option.numprocesses, option.dist


@pytest.mark.parametrize("arguments", [["."], ["first.ipynb", "second.ipynb::Cell 0"]])
def test_two_notebooks_are_shared_between_two_processes(conftest, folder, arguments):
    assert processes(conftest, folder, *arguments) == (2, "loadfile")
    assert processes(conftest, folder, *arguments, nbval=False, nbval_lax=True) == (2, "loadfile")


def test_side_by_side_a_blas_has_one_thread_in_each_unless_it_was_told_otherwise(conftest, folder, monkeypatch):
    processes(conftest, folder, ".")
    assert os.environ["OPENBLAS_NUM_THREADS"] == "8"
    monkeypatch.delenv("OPENBLAS_NUM_THREADS")
    processes(conftest, folder, "first.ipynb")
    assert "OPENBLAS_NUM_THREADS" not in os.environ
    processes(conftest, folder, ".")
    assert os.environ["OPENBLAS_NUM_THREADS"] == "1"


@pytest.mark.parametrize("options", [{"numprocesses": 0}, {"usepdb": True}, {"collectonly": True}, {"nbval": False}])
def test_whoever_says_otherwise_is_left_alone(conftest, folder, options):
    assert processes(conftest, folder, ".", **options) == (options.get("numprocesses"), "no")


def test_one_notebook_one_core_and_a_worker_of_others_stay_as_they_are(conftest, folder, monkeypatch):
    assert processes(conftest, folder, "first.ipynb") == (None, "no")
    monkeypatch.setenv("PYTEST_XDIST_WORKER", "gw0")
    assert processes(conftest, folder, ".") == (None, "no")
    monkeypatch.delenv("PYTEST_XDIST_WORKER")
    monkeypatch.setattr(conftest, "usable_cores", lambda: 1)
    assert processes(conftest, folder, ".") == (None, "no")


def test_the_bare_command_finds_the_wrong_notebook_of_two(folder):
    outside = {name: value for name, value in os.environ.items() if "PYTEST" not in name}
    command = [sys.executable, "-m", "pytest", "--nbval", "-p", "no:cacheprovider", "--rootdir=.", "."]
    done = subprocess.run(command, cwd=folder, env=outside, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 1
    assert "1 failed, 1 passed" in done.stdout
    assert "second.ipynb::Cell 0" in done.stdout
    assert ("2 workers" in done.stdout) == (usable_cores() > 1)
