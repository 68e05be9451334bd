"""The profiler's command line: `python -m tinytorch.profiling MODEL`, a model of the zoo or `module:factory`."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import sys
import tempfile
from contextlib import AbstractContextManager
from pathlib import Path
from typing import cast, get_args

from tinytorch.kernels.backend import BACKENDS, backend, current_backend
from tinytorch.kernels.progress import progress_bar
from tinytorch.profiling.bottlenecks.find import find_bottlenecks
from tinytorch.profiling.dispatch import record_function
from tinytorch.profiling.profiler.averages import SortBy
from tinytorch.profiling.profiler.context import ProfilerContext
from tinytorch.profiling.profiler.schedule import schedule
from tinytorch.profiling.table import Table
from tinytorch.profiling.workload import BATCH, Workload, WorkloadError, workload

WARMUP = 2


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command's arguments."""
    known = argparse.ArgumentParser(
        prog="python -m tinytorch.profiling",
        description="Profile a model: where its time goes, and what each operation waits for.",
    )
    known.add_argument(
        "model",
        metavar="MODEL",
        help="a model of the zoo, or module:factory, which returns a Module or (Module, inputs)",
    )
    known.add_argument("--batch", type=int, help=f"entries of the input (default: {BATCH})")
    known.add_argument("--length", type=int, help="positions, for a GPT (default: as many as it takes)")
    known.add_argument("--shape", type=_shape, help="of one entry of the input: C,H,W for images")
    known.add_argument("--train", action="store_true", help="profile steps of training, not of inference")
    known.add_argument("--steps", type=int, default=10, help="steps that are recorded (default: 10)")
    known.add_argument("--backend", choices=BACKENDS, help="what computes (default: numba where it is installed)")
    known.add_argument("--trace", type=Path, metavar="FILE", help="write the events for Perfetto (ui.perfetto.dev)")
    known.add_argument("--sort", choices=get_args(SortBy), default="self_cpu_time_total", help="column of the times")
    known.add_argument("--rows", type=int, default=10, help="rows of each table (default: 10)")
    tables = known.add_argument_group("what to show beside the times (default: --bottlenecks)")
    tables.add_argument("--bottlenecks", action="store_true", help="what each operation waits for, what to try")
    tables.add_argument("--flops", action="store_true", help="the work of each module in one step")
    tables.add_argument("--memory", action="store_true", help="the memory of one step")
    return known


def main(argv: list[str] | None = None) -> int:
    """Run the command; return 0, 1 for an error that was explained, 2 for a wrong command line, 130 after Ctrl-C."""
    arguments = parser().parse_args(argv)
    try:
        with contextlib.ExitStack() as stack:
            if arguments.backend is not None:
                stack.enter_context(backend(arguments.backend))
            stack.enter_context(_one_thread())
            _run(arguments)
    except WorkloadError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if error.usage else 1
    except (ModuleNotFoundError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        return 130
    return 0


def _run(arguments: argparse.Namespace) -> None:
    for option in ("steps", "rows"):
        if getattr(arguments, option) < 1:
            raise WorkloadError(f"--{option} must be at least 1, got {getattr(arguments, option)}", usage=True)
    if arguments.trace is not None:
        _check_writable(arguments.trace)
    numba = importlib.util.find_spec("numba") is not None
    asked = arguments.bottlenecks or not (arguments.flops or arguments.memory)
    if arguments.bottlenecks and not numba:
        raise WorkloadError('--bottlenecks measures the roofline with Numba: pip install "tinytorch-book[numba]"')
    work = workload(arguments.model, arguments.batch, arguments.length, arguments.shape, arguments.train)
    _first_step(work)
    prof = _profile(work, arguments.steps)
    print(f"{work}; backend {current_backend()}, one thread, {arguments.steps} steps")
    if arguments.trace is not None:
        prof.export_chrome_trace(arguments.trace)
        print(f"wrote {arguments.trace}: open it at https://ui.perfetto.dev")
    _show(prof.key_averages().table(arguments.sort, arguments.rows))
    if asked and numba:
        _show(find_bottlenecks(prof).table(arguments.rows))
    elif asked:
        print('without bottlenecks: the roofline needs Numba, pip install "tinytorch-book[numba]"', file=sys.stderr)
    if arguments.flops:
        _show(_flops(work))
    if arguments.memory:
        _show(_memory(work))


def _one_thread() -> AbstractContextManager[object]:
    """Keep BLAS to one thread, as the compiled kernels are: the roofs are those of one thread."""
    from threadpoolctl import threadpool_limits

    return cast(AbstractContextManager[object], threadpool_limits(limits=1))


def _first_step(work: Workload) -> None:
    """Take a step in which kernels compile and the model may refuse its input."""
    try:
        work.step()
    except Exception as error:
        said = " ".join(f"{type(error).__name__}: {error}".split())
        raise WorkloadError(f"{work.name} failed in its first step: {said}") from error


def _profile(work: Workload, steps: int) -> ProfilerContext:
    plan = schedule(wait=0, warmup=WARMUP, active=steps, repeat=1)
    with ProfilerContext(work.model, plan) as prof:
        for _ in progress_bar(range(WARMUP + steps), desc="profiling", unit="step", delay=2):
            with record_function("step"):
                work.step()
            prof.step()
    return prof


def _flops(work: Workload) -> Table:
    from tinytorch.profiling.flops.counter import FLOPCounter

    with FLOPCounter(work.model) as counter:
        work.step()
    return counter.table()


def _memory(work: Workload) -> Table:
    from tinytorch.profiling.memory.profiler import MemoryProfiler

    with MemoryProfiler(work.model, work.optimizer) as memory:
        work.step()
    return memory.table()


def _show(table: Table) -> None:
    print()
    if sys.stdout.isatty():
        table.print_rich()
    else:
        print(table)


def _check_writable(path: Path) -> None:
    """Raise an OSError now if a file cannot be written later on."""
    if path.is_dir():
        raise IsADirectoryError(f"the trace cannot be written: {path} is a folder")
    try:
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise OSError(f"the trace cannot be written to {path}: {error.strerror}") from None


def _shape(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(size) for size in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no shape: write 1,28,28") from None


if __name__ == "__main__":
    sys.exit(main())
