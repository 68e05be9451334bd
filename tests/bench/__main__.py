"""Measure and publish: `python -m tests.bench [--quick] [--only RUN ...] [--out FILE]`, or `make bench [QUICK=1]`.

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
from typing import Any, NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

from tests.bench import competition, profiler, quantized_accuracy, startup, timer, training, transformers
from tests.bench.launches import over_launches
from tests.bench.progress import Progress
from tinytorch.benchmarks.tinymlperf.suite import Disturbed
from tinytorch.book.results import MEASURED, record
from tinytorch.profiling.timing.environment import machine


class Run(NamedTuple):
    """One run: how to measure it and for how long.

    Attributes
    ----------
    measure
        Takes the seconds to spend, and returns the rows. An AssertionError if two sides do not compute the same.
    budget
        Seconds to spend on timing.
    takes, tried
        Seconds that all of it takes, and a trial, on the machine of the published figures: so the time left is known.
    peers
        Whether it needs those of the extra `bench`.
    """

    measure: Callable[[np.random.Generator, float], training.Rows]
    budget: float
    takes: float
    tried: float
    peers: bool = False


def _launches(module: str) -> Callable[[np.random.Generator, float], training.Rows]:
    return partial(over_launches, f"tests.bench.{module}")


RUNS = {
    "import": Run(startup.startup, 8.0, 5, 2),
    "training_cnn": Run(training.training_cnn, 30.0, 20, 7, True),
    "training_gpt": Run(training.training_gpt, 28.0, 20, 9, True),
    "14_forward": Run(transformers.forward_14, 26.0, 20, 7),
    "14_generation": Run(transformers.generation_14, 40.0, 35, 9),
    "15_matmul": Run(_launches("matmul"), 32.0, 57, 9, True),
    "15_inference": Run(_launches("inference"), 40.0, 50, 10, True),
    "15_fused": Run(_launches("fused"), 30.0, 26, 2),
    "16_int8": Run(_launches("quantization"), 48.0, 53, 8, True),
    "16_accuracy": Run(quantized_accuracy.accuracy_16, 150.0, 65, 9),
    "17_sparse": Run(_launches("sparsity"), 36.0, 66, 11, True),
    "17_models": Run(_launches("smaller_models"), 60.0, 55, 7),
    "18_generation": Run(_launches("generation"), 50.0, 150, 12, True),
    "19_timer": Run(timer.timer_19, 90.0, 32, 2),
    "19_profiler": Run(profiler.profiler, 40.0, 18, 4),
    "20_combined": Run(_launches("combined"), 20.0, 68, 11),
    "20_everything": Run(_launches("everything"), 22.0, 72, 7),
    "20_trust": Run(competition.trust_20, 20.0, 200, 21),
}
_QUICK = 0.01  # of a run's budget


def main(argv: list[str] | None = None) -> int:
    """Run the command; return 0, 1 if two sides differ or a run was disturbed, or 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a trial in 3 minutes: written only with --out")
    parser.add_argument("--only", nargs="+", metavar="RUN", choices=RUNS, help=f"of: {', '.join(RUNS)}")
    parser.add_argument("--out", type=Path, help="default: chapters/measured.json")
    parser.add_argument("--seed", type=int, default=0, help="of weights, batches and order")
    options = parser.parse_args(argv)
    out = options.out or (None if options.quick else MEASURED)
    chosen = [name for name in RUNS if not options.only or name in options.only]
    skipped = [name for name in chosen if RUNS[name].peers and not _has_peers()]
    if skipped:
        print(
            f"without its peers, PyTorch among them, not measured: {', '.join(skipped)}. "
            "`make bench` has an environment with them",
            file=sys.stderr,
        )
    with threadpool_limits(1):
        return _measure([name for name in chosen if name not in skipped], options, out)


def _measure(chosen: list[str], options: argparse.Namespace, out: Path | None) -> int:
    status = 0
    progress = Progress({name: RUNS[name].tried if options.quick else RUNS[name].takes for name in chosen})
    for number, name in enumerate(chosen):
        budget = RUNS[name].budget * (_QUICK if options.quick else 1.0)
        try:
            with progress.run(name):
                rows = RUNS[name].measure(np.random.default_rng(options.seed), budget)
        except KeyboardInterrupt:
            progress.close()
            print(f"\nstopped in {name}: {number} of {len(chosen)} runs were measured", file=sys.stderr)
            return 130
        except AssertionError as error:
            progress.close()
            print(f"error: {name} is not measured, its two sides do not compute the same: {error}", file=sys.stderr)
            return 1
        except Disturbed as error:
            progress.print(f"{name} is not measured: {error}\n")
            status = 1
            continue
        if out is not None:
            out.parent.mkdir(parents=True, exist_ok=True)
            record(name, "make bench", rows, out)
        progress.print(table(name, rows))
    progress.close()
    if options.quick:
        print("a trial: of one launch and few rounds, so that its intervals and verdicts say little")
    print(f"written to {out}" if out and chosen else "nothing was written")
    return status


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
