"""Measure and publish: `python -m tests.bench [--quick] [--only RUN ...] [--out FILE]`, or `make bench`.

Each run is written to chapters/measured.json as a whole as soon as it is complete, in place of its last one and beside
the runs of others; Ctrl-C loses the unfinished one alone. What `--quick` measures is not published.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from tests.bench import competition, profiler, quantized_accuracy, startup, timer, training, transformers
from tests.bench.launches import over_launches
from tinytorch.book.results import MEASURED, record
from tinytorch.profiling.timing.environment import machine

# run -> (how to measure it, seconds to spend, whether it needs the peers of the extra `bench`)
RUNS: dict[str, tuple[Callable[[np.random.Generator, float], training.Rows], float, bool]] = {
    "import": (startup.startup, 10.0, False),
    "training_cnn": (training.training_cnn, 90.0, True),
    "training_gpt": (training.training_gpt, 60.0, True),
    "14_forward": (transformers.forward_14, 60.0, False),
    "14_generation": (transformers.generation_14, 90.0, False),
    "15_matmul": (partial(over_launches, "tests.bench.matmul"), 60.0, True),
    "15_inference": (partial(over_launches, "tests.bench.inference"), 100.0, True),
    "15_fused": (partial(over_launches, "tests.bench.fused"), 60.0, False),
    "16_int8": (partial(over_launches, "tests.bench.quantization"), 120.0, True),
    "16_accuracy": (quantized_accuracy.accuracy_16, 150.0, False),
    "17_sparse": (partial(over_launches, "tests.bench.sparsity"), 120.0, True),
    "17_models": (partial(over_launches, "tests.bench.smaller_models"), 120.0, False),
    "18_generation": (partial(over_launches, "tests.bench.generation"), 60.0, True),
    "19_timer": (timer.timer_19, 90.0, False),
    "19_profiler": (profiler.profiler, 60.0, False),
    "20_trust": (competition.trust_20, 120.0, False),
}
_QUICK = 0.05  # of those seconds


def main(argv: list[str] | None = None) -> int:
    """Run the command; return 0, 1 if the two sides of a comparison differ, or 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a trial in a minute: few rounds, written only with --out")
    parser.add_argument("--only", nargs="+", metavar="RUN", choices=RUNS, help=f"of: {', '.join(RUNS)}")
    parser.add_argument("--out", type=Path, help="default: chapters/measured.json")
    parser.add_argument("--seed", type=int, default=0, help="of weights, batches and order")
    options = parser.parse_args(argv)
    out = options.out or (None if options.quick else MEASURED)
    chosen = [name for name in RUNS if not options.only or name in options.only]
    skipped = [name for name in chosen if RUNS[name][2] and not _has_peers()]
    if skipped:
        print(
            f"without its peers, PyTorch among them, not measured: {', '.join(skipped)}. "
            'Get them: pip install -e ".[bench]"',
            file=sys.stderr,
        )
    with threadpool_limits(1):
        return _measure([name for name in chosen if name not in skipped], options, out)


def _measure(chosen: list[str], options: argparse.Namespace, out: Path | None) -> int:
    for number, name in enumerate(chosen, start=1):
        function, budget, _ = RUNS[name]
        print(f"[{number}/{len(chosen)}] {name}", file=sys.stderr)
        try:
            rows = function(np.random.default_rng(options.seed), budget * (_QUICK if options.quick else 1.0))
        except KeyboardInterrupt:
            print(f"\nstopped in {name}: {number - 1} of {len(chosen)} runs were measured", file=sys.stderr)
            return 130
        except AssertionError as error:
            print(f"error: {name} is not measured, its two sides do not compute the same: {error}", file=sys.stderr)
            return 1
        if out is not None:
            out.parent.mkdir(parents=True, exist_ok=True)
            record(name, "make bench", rows, out)
        print(table(name, rows))
    print(f"written to {out}" if out and chosen else "nothing was written")
    return 0


def table(run: str, rows: Mapping[str, Mapping[str, Any]]) -> str:
    """Lay out a run's rows: value, interval and what it is, which tells the aim and whether it was reached."""
    lines = [f"{f'{run}/{name}':24} {_value(row):>16}  {row['low']:g} to {row['high']:g}" for name, row in rows.items()]
    width = max(map(len, lines))
    return "\n".join(f"{line:{width}}  {row['what']}" for line, row in zip(lines, rows.values(), strict=True)) + "\n"


def _value(row: Mapping[str, Any]) -> str:
    return f"{row['value']:g} {row['unit']}"


def _has_peers() -> bool:
    if not all(importlib.util.find_spec(name) for name in ("torch", "onnx", "onnxruntime", "scipy")):
        return False
    import torch

    torch.set_num_threads(1)
    return True


if __name__ == "__main__":
    print(", ".join(f"{value}" for value in machine().values()))
    sys.exit(main())
