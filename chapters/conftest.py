"""`pytest --nbval chapters` runs two notebooks at a time, where there are two cores: half the time to wait."""

import os

import pytest

from tinytorch.kernels.machine import usable_cores


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist looks at its options
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Do what `-n 2 --dist loadfile` does, unless `-n` says otherwise or somebody wants to look inside.

    Two, not one for each core: cells take times, and whoever takes times wants few neighbours.
    """
    options = config.option
    compares = getattr(options, "nbval", False) or getattr(options, "nbval_lax", False)
    is_free = getattr(options, "numprocesses", 0) is None and "PYTEST_XDIST_WORKER" not in os.environ
    looks_inside = options.usepdb or options.collectonly
    if compares and is_free and not looks_inside and usable_cores() > 1 and _notebooks(config) > 1:
        options.numprocesses, options.dist = 2, "loadfile"
        # side by side, a BLAS that takes all cores in each makes chapter 14, which leaves it its threads, far slower
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def _notebooks(config: pytest.Config) -> int:
    paths = [config.invocation_params.dir / argument.partition("::")[0] for argument in config.args]
    return sum(len(list(path.rglob("*.ipynb"))) if path.is_dir() else 1 for path in paths)
