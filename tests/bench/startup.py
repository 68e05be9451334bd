"""What `import tinytorch` takes in a fresh process, beyond that of an empty one. Run `import`, row `seconds`."""

from __future__ import annotations

import subprocess
import sys
from functools import partial

import numpy as np

from tests.bench.training import Rows, row, verdict
from tests.bench.turns import timer
from tinytorch.profiling.timing.statistics import median_interval

AIM = 0.3  # seconds


def startup(rng: np.random.Generator, budget: float) -> Rows:
    """Start interpreters in pairs, with and without the import."""
    with_import, empty = timer(rng, budget).rounds([partial(_run, "import tinytorch"), partial(_run, "")]).T
    seconds = median_interval(with_import - empty)
    aim = f"aim at most {AIM:g}: {verdict(seconds, AIM)}"
    return {"seconds": row(seconds, "s", f"import tinytorch, beyond an empty interpreter ({aim})")}


def _run(code: str) -> None:
    subprocess.run([sys.executable, "-c", code], check=True)
