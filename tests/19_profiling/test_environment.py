"""What a timing depends on is described as it is at that moment."""

import importlib
import os
import platform

import numpy as np
from threadpoolctl import threadpool_limits

import tinytorch
from tinytorch.profiling.timing.environment import Environment, machine
from tinytorch.profiling.timing.timer import Timer

fake = importlib.import_module("tests.19_profiling.fake_machine")


def test_the_backend_and_its_threads_are_those_in_use():
    before = tinytorch.get_num_threads()
    try:
        with tinytorch.backend("naive"):
            tinytorch.set_num_threads(3)
            here = Environment.current()
    finally:
        tinytorch.set_num_threads(before)
    assert (here.backend, here.threads) == ("naive", 3)
    assert "TinyTorch naive, 3 threads" in str(here)
    assert Environment.current().threads == before


def test_the_threads_of_the_blas_are_those_in_use():
    with threadpool_limits(1):
        assert Environment.current().blas_threads == 1
        assert "1 thread;" in str(Environment.current())


def test_a_measurement_remembers_where_it_was_taken():
    clock = fake.FakeMachine()
    with tinytorch.backend("naive"):
        m = Timer(clock=clock.clock).measure(clock.function("f", 0.01))
    assert m.environment.backend == "naive"
    assert str(m.environment) in str(m)
    assert (m.environment.python, m.environment.numpy) == (platform.python_version(), np.__version__)


def test_what_is_stored_beside_a_timing_has_its_old_keys():
    here, stored = Environment.current(), machine()
    assert stored == {
        "cpu": here.cpu,
        "cores": os.cpu_count(),
        "blas": here.blas,
        "python": here.python,
        "numpy": here.numpy,
    }
    assert here.cpu
    assert 1 <= here.usable <= here.cores


def test_fewer_cores_than_the_machine_has_are_told():
    here = Environment("A CPU", 8, 2, "openblas Haswell", 1, "3.11.7", "2.4.6", "numba", 1)
    assert str(here).startswith("A CPU, 2 of 8 cores; BLAS openblas Haswell, 1 thread;")
