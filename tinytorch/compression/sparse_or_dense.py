"""From how many zeros on a layer is faster without them: measured once on each machine, and kept there."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from tinytorch.data.files import write
from tinytorch.kernels import sparse
from tinytorch.kernels.backend import backend, compiled, current_backend
from tinytorch.kernels.machine import cpu_name
from tinytorch.kernels.progress import progress_bar

_STOPS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
_ROUNDS = 9

Clock = Callable[[], float]


@dataclass(frozen=True)
class BreakEven:
    """The share of zeros from which on the sparse form is the faster one, for linear layers and for convolutions."""

    linear: float
    convolution: float

    def of(self, layer: sparse.Layer) -> float:
        """Return that of a layer's kind."""
        return self.linear if isinstance(layer, sparse.Linear) else self.convolution


def break_even() -> BreakEven:
    """Return this machine's break-even; the first call takes a second or two to measure it.

    It is kept with the compiled kernels, for each processor by its name, and measured anew when the kernels change.
    Without Numba there is no dense form to compare with: then it is 0, for all layers.
    """
    if current_backend() != "numba":
        return BreakEven(0.0, 0.0)
    path: Path = compiled("jit").cache_folder() / "break_even.json"
    known = _read(path)
    if cpu_name() not in known:
        known[cpu_name()] = asdict(measure_break_even())
        with suppress(OSError):  # a folder that cannot be written: measured anew by the next process
            write(path, (json.dumps(known, indent=1) + "\n").encode())
    return BreakEven(**known[cpu_name()])


def measure_break_even(clock: Clock = time.perf_counter) -> BreakEven:
    """Time both forms of two layers at growing sparsity, in turns: 256 x 256 weights on 64 inputs; 32 to 32 channels.

    Raises
    ------
    ModuleNotFoundError
        If Numba is not installed.
    """
    rng = np.random.default_rng(0)
    with backend("numba"), progress_bar(total=2 * len(_STOPS), desc="measuring the break-even", delay=1) as bar:

        def ratios(make: Callable[[sparse.Rows, bool], sparse.Layer], columns: int, shape: tuple[int, ...]) -> float:
            x, found = rng.standard_normal(shape).astype(np.float32), []
            for stop in _STOPS:
                weight = rng.standard_normal((shape[1], columns)).astype(np.float32)
                weight[rng.random(weight.shape) < stop] = 0
                rows = sparse.Rows.from_dense(weight)
                forms = [sparse.Network([make(rows, dense)], shape[1:]) for dense in (False, True)]
                found.append(_ratio(forms[0], forms[1], x, clock))
                bar.update()
            return crossing(_STOPS, found)

        return BreakEven(
            linear=ratios(lambda rows, dense: sparse.Linear(rows, dense=dense), 256, (64, 256)),
            convolution=ratios(
                lambda rows, dense: sparse.Convolution(rows, 3, padding=1, dense=dense), 9 * 32, (16, 32, 14, 14)
            ),
        )


def crossing(stops: tuple[float, ...], ratios: list[float]) -> float:
    """Return where the line through (stop, ratio) rises to 1 for good.

    That is the last stop if it never does, and the first if it is there throughout.
    """
    above = len(stops)
    while above and ratios[above - 1] >= 1:
        above -= 1
    if above in (0, len(stops)):
        return stops[0] if above == 0 else stops[-1]
    low, high = ratios[above - 1], ratios[above]
    return round(stops[above - 1] + (stops[above] - stops[above - 1]) * (1 - low) / (high - low), 3)


def _ratio(sparse_form: sparse.Network, dense_form: sparse.Network, x: np.ndarray, clock: Clock) -> float:
    """Return the median of dense time over sparse time."""
    sparse_form(x), dense_form(x)
    ratios = []
    for _ in range(_ROUNDS):
        start = clock()
        sparse_form(x)
        middle = clock()
        dense_form(x)
        ratios.append((clock() - middle) / max(middle - start, 1e-9))
    return float(np.median(ratios))


def _read(path: Path) -> dict[str, dict[str, float]]:
    """Return what was kept; nothing if the file is missing or is not what was written here."""
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
        for entry in known.values():
            BreakEven(**{name: float(number) for name, number in entry.items()})
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
    return dict(known)
