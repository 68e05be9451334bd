"""Submissions run in a process of their own, within limits of time and memory, timed by the clock of this one."""

from __future__ import annotations

import io
import mmap
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np

from tinytorch.benchmarks.tinymlperf import messages
from tinytorch.benchmarks.tinymlperf.limits import Limits
from tinytorch.benchmarks.tinymlperf.messages import Channel, Message
from tinytorch.benchmarks.tinymlperf.rejection import Code, Rejected
from tinytorch.benchmarks.tinymlperf.watch import Watch, has_ended, kill

WORKER = "tinytorch.benchmarks.tinymlperf.worker"

# What the interpreter, its libraries and the cache of compiled kernels need to be found.
_KEPT = ("PATH", "HOME", "USERPROFILE", "LOCALAPPDATA", "SYSTEMROOT", "XDG_CACHE_HOME", "TINYTORCH_CACHE_DIR")
_LIBRARIES = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
_LOG = 4000  # bytes at the end of the log
_SHARED = 2**26  # bytes of memory in each direction; a page of it is taken when it is first written to


class SandboxError(RuntimeError):
    """The process could not be started or used, through no fault of a submission."""


class Timed(NamedTuple):
    """The outputs of a run, and the seconds from the first byte of its inputs to the last of its outputs."""

    seconds: float
    outputs: list[np.ndarray]


class Sandbox:
    """A process that holds one submission and runs it on request, as a context: `with Sandbox(path) as sandbox:`.

    The process gets no labels, none of this process's environment beside what it needs to start, an empty folder to
    work in, one thread, and as much time, memory, open files and processes as `limits` and the system allow. The clock
    is this process's, and an answer counts only if it names a number that came with the request: none can be prepared.

    It is a second wall, not the first: a submission contains no code, and all of it is checked before it runs. The
    process can still read what its user may read, and use the network.

    Parameters
    ----------
    path
        The submission.
    limits
        `start_seconds`, `run_seconds`, `memory_bytes` and `output_bytes` hold for the process, the others for the file.
    module
        The program of the process, a module that calls `worker.serve`.

    Attributes
    ----------
    log
        The end of what the last process wrote to its standard error, once it is closed. Not for strangers.

    Raises
    ------
    Rejected
        From entering and from each request: by the submission's fault. Where the process did not survive it, the next
        request gets a SandboxError; enter again for a new one.
    SandboxError
        By no fault of the submission.
    """

    def __init__(self, path: str | Path, limits: Limits | None = None, module: str = WORKER) -> None:
        self.path, self.limits, self.module = Path(path).absolute(), limits or Limits(), module
        self._process: subprocess.Popen[bytes] | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._channel: Channel | None = None
        self._watch: Watch | None = None
        self.log = ""

    def __enter__(self) -> Sandbox:
        if self._process:
            raise SandboxError("the sandbox is in use: make another one")
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def run(
        self, inputs: Mapping[str, np.ndarray], shapes: Sequence[tuple[int, ...]] | None = None
    ) -> list[np.ndarray]:
        """Return the outputs for these inputs: float32, finite, and of these shapes if they are given."""
        return self.timed(inputs, shapes).outputs

    def timed(self, inputs: Mapping[str, np.ndarray], shapes: Sequence[tuple[int, ...]] | None = None) -> Timed:
        """Return the same, and the seconds that the run took."""
        return self._request({"call": "run", "names": list(inputs)}, list(inputs.values()), shapes)

    def stream(self, inputs: Mapping[str, np.ndarray], shapes: Sequence[tuple[int, ...]] | None = None) -> Timed:
        """Return the outputs for samples that are run one after the other, and the seconds of all."""
        return self._request({"call": "stream", "names": list(inputs)}, list(inputs.values()), shapes)

    def reset(self, batch: int) -> None:
        """Make a language model forget, and expect so many sequences."""
        self._request({"call": "reset", "batch": batch}, [], [])

    def step(self, ids: np.ndarray, shapes: Sequence[tuple[int, ...]] | None = None) -> Timed:
        """Return what a language model that remembers says after these ids, (batch, positions), too."""
        return self._request({"call": "step"}, [ids], shapes)

    def steps(self, ids: np.ndarray, shapes: Sequence[tuple[int, ...]] | None = None) -> Timed:
        """Return what a language model says that is given these ids one position after the other, as in generation."""
        return self._request({"call": "steps"}, [ids], shapes)

    def generate(self, ids: np.ndarray, count: int, shapes: Sequence[tuple[int, ...]] | None = None) -> Timed:
        """Return the scores from which a language model takes the next `count` tokens, the best one each time."""
        return self._request({"call": "generate", "count": count}, [ids], shapes)

    def close(self) -> None:
        """End the process, all that it started, and its folder."""
        if self._watch:
            self._watch.end()
            self._watch = None
        if self._process:
            kill(self._process)
            self._process.wait()
            self._process = None
        if self._channel:
            self._channel.close()
            self._channel = None
        if self._folder:
            with suppress(OSError), Path(self._folder.name, "log").open("rb") as log:
                log.seek(max(0, os.fstat(log.fileno()).st_size - _LOG))
                self.log = log.read(_LOG).decode("utf-8", "replace")
            self._folder.cleanup()
            self._folder = None

    def _start(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="tinymlperf-", ignore_cleanup_errors=True)
        shared = _shared_memory()
        try:
            with Path(self._folder.name, "log").open("wb") as log:
                self._process = subprocess.Popen(
                    [sys.executable, "-P", "-m", self.module, *map(str, shared)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    bufsize=0,
                    pass_fds=shared,
                    cwd=self._folder.name,
                    env=_environment(self._folder.name),
                    start_new_session=True,  # Ctrl-C is for this process, which then ends that one
                    creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
                )
            to, answers = self._process.stdin, self._process.stdout
            assert isinstance(to, io.FileIO)
            assert isinstance(answers, io.FileIO)
            outgoing, incoming = (mmap.mmap(number, 0) for number in shared) if shared else (None, None)
            self._channel = Channel(answers, to, incoming, outgoing)
        finally:
            for number in shared:
                os.close(number)
        self._watch = Watch(self._process)
        try:
            self._exchange(None, self.limits.start_seconds)
        except Rejected as rejected:
            raise SandboxError(f"the process did not start: {rejected.message}. Its log ends:\n{self.log}") from None
        self._request({"path": str(self.path), "limits": asdict(self.limits)}, [], [], self.limits.start_seconds)

    def _request(
        self,
        header: dict[str, Any],
        inputs: list[np.ndarray],
        shapes: Sequence[tuple[int, ...]] | None,
        limit: float | None = None,
    ) -> Timed:
        nonce = secrets.token_hex(8)
        message = messages.encode({**header, "nonce": nonce}, inputs)
        try:
            seconds, reply, outputs = self._exchange(message, limit or self.limits.run_seconds)
        except (Rejected, SandboxError):
            raise
        except BaseException:  # Ctrl-C: the answer may still come, and would be taken for that of the next request
            self.close()
            raise
        if reply.get("answers") != nonce:
            raise self._gone(Code.CRASHED, "the process answered what was not asked")
        if "code" in reply:
            raise _refusal(reply)
        _check(outputs, shapes)
        return Timed(seconds, [array.copy() for array in outputs])  # their memory is that of the next answer, too

    def _exchange(self, message: Message | None, limit: float) -> tuple[float, dict[str, Any], list[np.ndarray]]:
        """Return the seconds from the first byte of a message to the last of its answer, and the answer."""
        if not (self._channel and self._watch):
            raise SandboxError("there is no process: enter the sandbox, with Sandbox(path) as sandbox")
        raw, bad = None, None
        self._watch.allow(limit)
        try:
            start = time.perf_counter()
            if message:
                self._channel.write(message)
            raw = self._channel.read(self.limits.output_bytes)
            seconds = time.perf_counter() - start
        except (OSError, EOFError):
            pass  # the process has ended
        except messages.BadMessage as error:
            bad = error
        if self._watch.is_late() or not (raw or bad):
            raise self._ended(limit)
        try:
            if raw:
                return seconds, *messages.decode(*raw)
        except messages.BadMessage as error:
            bad = error
        raise self._gone(Code.CRASHED, f"the process sent {bad}")

    def _gone(self, code: Code, message: str) -> Rejected:
        self.close()
        return Rejected(code, message)

    def _ended(self, limit: float) -> Rejected:
        """Return why the process has ended."""
        assert self._process is not None
        assert self._watch is not None
        process, late = self._process, self._watch.is_late()
        pretends = not late and not has_ended(process)
        self.close()
        signal_name = _signal(process.returncode)
        if late or signal_name == "SIGXCPU":
            return Rejected(Code.TIMEOUT, f"it took over {limit:g} s: make the model smaller or faster")
        if pretends:
            return Rejected(Code.CRASHED, "the process stopped answering")
        if signal_name == "SIGKILL":
            return Rejected(Code.OUT_OF_MEMORY, "the system ended the process, as it does where memory is short")
        return Rejected(Code.CRASHED, f"the process ended with {signal_name or f'status {process.returncode}'}")


def _signal(status: int) -> str | None:
    """Return the signal that ended a process, by its status."""
    return next((s.name for s in signal.Signals if s == -status), None)


def _shared_memory() -> list[int]:
    """Return two files in memory to share with a process, of a size that neither can change; none if it is no Linux."""
    if sys.platform != "linux":
        return []
    import fcntl

    found: list[int] = []
    with suppress(OSError):
        for _ in range(2):
            found.append(os.memfd_create("tinymlperf", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING))
            os.ftruncate(found[-1], _SHARED)
            fcntl.fcntl(found[-1], fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
        return found
    for number in found:
        os.close(number)
    return []


def _environment(folder: str) -> dict[str, str]:
    kept = {name: os.environ[name] for name in (*_KEPT, *_LIBRARIES) if name in os.environ}
    return kept | {
        "PYTHONPATH": os.pathsep.join(os.path.abspath(entry) for entry in sys.path),  # the same modules as here
        "PYTHONHASHSEED": "0",
        "PYTHONUTF8": "1",
        "TMPDIR": folder,
        "TEMP": folder,
        **dict.fromkeys(_ONE_THREAD, "1"),
    }


def _refusal(reply: dict[str, Any]) -> Rejected:
    """Return the rejection that a process reports; the words are its own, so they are made fit to be shown."""
    code, message = reply["code"], str(reply.get("message"))[:500]
    known = code if isinstance(code, str) and code in set(Code) else Code.CRASHED
    return Rejected(Code(known), "".join(c if c.isprintable() else " " for c in message))


def _check(outputs: Sequence[np.ndarray], shapes: Sequence[tuple[int, ...]] | None) -> None:
    if shapes is not None and [a.shape for a in outputs] != [tuple(s) for s in shapes]:
        found = ", ".join(map(str, (a.shape for a in outputs))) or "none"
        wanted = ", ".join(map(str, shapes)) or "none"
        raise Rejected(Code.WRONG_OUTPUT, f"the outputs' shapes are {found}: the task expects {wanted}")
    for i, array in enumerate(outputs):
        if array.dtype != np.float32:
            raise Rejected(Code.WRONG_OUTPUT, f"output {i} is {array.dtype}: the task expects float32")
        if not np.isfinite(array).all():
            raise Rejected(Code.WRONG_OUTPUT, f"output {i}, of shape {array.shape}, holds NaN or an infinite number")
