"""The process in which a submission runs: it gets a path and inputs, answers with outputs, and never sees a label.

`Sandbox` starts it. It gives up resources before it opens the submission: a submission holds no code, but what reads it
may have faults. Its standard output is no part of the protocol, so that whatever prints does no harm.
"""

from __future__ import annotations

import io
import math
import mmap
import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from tinytorch.benchmarks.tinymlperf import messages
from tinytorch.benchmarks.tinymlperf.limits import Limits
from tinytorch.benchmarks.tinymlperf.messages import Channel, Message
from tinytorch.benchmarks.tinymlperf.rejection import Code, Rejected

_MOST_WRITTEN = 2**26  # bytes of one file: compiled kernels and the log are smaller
_MOST_OPEN = 64


class Runner(Protocol):
    """What a loaded submission can do; those for language do `reset`, `step` and `generate`, too."""

    def run(self, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """Return the outputs for named inputs."""


def load(path: str, limits: Limits) -> Runner:
    """Open a submission, which checks all of it, and make it ready to run."""
    from tinytorch.benchmarks.tinymlperf.execution import Program
    from tinytorch.benchmarks.tinymlperf.submission import Submission

    submission = Submission.open(path, limits)
    return Program(submission.graph, submission.arrays)


def serve(load: Callable[[str, Limits], Runner]) -> None:
    """Answer the requests on standard input until it is closed. Arguments are the numbers of files to share."""
    channel = _take_channel(*map(int, sys.argv[1:]))
    channel.write(messages.encode({"ready": True}))  # what fails before is no fault of the submission
    first, _ = messages.decode(*channel.read(0))
    limits = Limits(**first["limits"])
    _give_up_resources(limits)
    runner: Runner | None = None

    def start() -> list[np.ndarray]:
        nonlocal runner
        runner = load(first["path"], limits)
        return []

    _allow(limits.start_seconds)
    channel.write(_answer(start, first, limits))
    while runner is not None:
        _allow(limits.run_seconds)
        try:
            request, arrays = messages.decode(*channel.read(sys.maxsize))
        except EOFError:
            return
        channel.write(_answer(partial(_call, runner, request, arrays), request, limits))


def _call(runner: Any, request: dict[str, Any], arrays: list[np.ndarray]) -> list[np.ndarray]:
    match request["call"]:
        case "reset":
            runner.reset(request["batch"])
            return []
        case "step":
            return [runner.step(*arrays)]
        case "steps":
            runner.reset(len(arrays[0]))
            return [np.concatenate([runner.step(ids[:, None]) for ids in arrays[0].T], axis=1)]
        case "generate":
            return [runner.generate(*arrays, request["count"])]
    inputs = dict(zip(request["names"], arrays, strict=True))
    if request["call"] == "stream":
        samples = range(len(arrays[0]))
        answers = [runner.run({name: array[i : i + 1] for name, array in inputs.items()}) for i in samples]
        return [np.concatenate(outputs) for outputs in zip(*answers, strict=True)]
    return list(runner.run(inputs))


def _answer(call: Callable[[], list[np.ndarray]], request: dict[str, Any], limits: Limits) -> Message:
    """Return the message with what a call returns, or why it does not."""
    try:
        answer = messages.encode({"answers": request["nonce"]}, call())
        if answer.size <= limits.output_bytes:
            return answer
        code, message = Code.WRONG_OUTPUT, f"the outputs have {answer.size:,} bytes, over {limits.output_bytes:,}"
    except Rejected as rejected:
        code, message = rejected.code, rejected.message
    except MemoryError:
        code, message = Code.OUT_OF_MEMORY, "the run needs more memory than it may take: make the model smaller"
    except Exception as error:
        traceback.print_exc()  # into the log, which the submission's owner is not shown
        code, message = Code.CRASHED, f"the run failed: {type(error).__name__}: {error}"
    return messages.encode({"answers": request["nonce"], "code": code, "message": message[:500]})


def _take_channel(*shared: int) -> Channel:
    """Return the way to the evaluator. Whatever else reads gets nothing, and what it prints goes into the log."""
    requests, replies = io.FileIO(os.dup(0), "rb"), io.FileIO(os.dup(1), "wb")
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    os.dup2(2, 1)
    incoming, outgoing = (mmap.mmap(number, 0) for number in shared) if shared else (None, None)
    for number in shared:
        os.close(number)
    return Channel(requests, replies, incoming, outgoing, trusting=True)


def _give_up_resources(limits: Limits) -> None:
    """Set the system's limits on this process, where it has them."""
    if sys.platform == "win32":
        return
    import resource

    lower = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_FSIZE: _MOST_WRITTEN,
        resource.RLIMIT_NOFILE: _MOST_OPEN,
        resource.RLIMIT_NPROC: 0,  # also threads; for a superuser the system does not count them
    }
    with suppress(OSError):  # other systems than Linux do not tell what is taken already, which may be terabytes there
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        lower[resource.RLIMIT_AS] = pages * resource.getpagesize() + limits.memory_bytes
    for which, most in lower.items():
        hard = resource.getrlimit(which)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(which, (most, most))


def _allow(seconds: float) -> None:
    """Let the system end this process after so much of the processor's time: the evaluator may be gone by then."""
    if sys.platform == "win32":
        return
    import resource

    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    most = math.ceil(time.process_time() + seconds) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


if __name__ == "__main__":
    serve(load)
