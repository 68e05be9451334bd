"""Working the queue off: lease a submission, measure it, say what was found; here, or on the workers of a cluster.

Whatever happens, a submission ends scored, rejected with a code, or given back as a failure of the infrastructure. A
result counts once: the board takes it only from the lease that holds.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinytorch.benchmarks.tinymlperf.clock import now
from tinytorch.benchmarks.tinymlperf.leaderboard.leases import Lease
from tinytorch.benchmarks.tinymlperf.leaderboard.refusal import LeaseLost
from tinytorch.benchmarks.tinymlperf.leaderboard.store import Leaderboard
from tinytorch.benchmarks.tinymlperf.rejection import Code, Rejected
from tinytorch.benchmarks.tinymlperf.sandbox import SandboxError
from tinytorch.benchmarks.tinymlperf.submission import Submission
from tinytorch.benchmarks.tinymlperf.suite import TOLERANCE, BenchmarkSuite, Disturbed

Outcome = dict[str, Any]  # {"report": ...}, {"code": ..., "message": ...} or {"failure": ...}
Told = Callable[[Lease, Outcome], None]


@dataclass(frozen=True)
class How:
    """How thoroughly to measure: seconds, launches, hidden samples and tolerance, as `BenchmarkSuite` has them."""

    seconds: float = 10.0
    launches: int = 5
    hidden: Path | None = None
    tolerance: float = TOLERANCE


@dataclass(frozen=True)
class Job:
    """What a worker needs: the file's bytes, a seed, how long to measure, and in how many launches."""

    raw: bytes
    seed: int
    seconds: float
    hidden: str | None = None
    launches: int = 5
    tolerance: float = TOLERANCE
    division: str | None = None


def measure(job: Job) -> Outcome:
    """Measure one submission in this process's sandboxes; nothing but Ctrl-C is raised."""
    hidden = None if job.hidden is None else Path(job.hidden)
    try:
        with tempfile.TemporaryDirectory(prefix="tinymlperf-") as folder:
            path = Path(folder) / "submission.safetensors"
            path.write_bytes(job.raw)
            if job.division is not None:
                Submission.open(path).need_division(job.division)
            found = BenchmarkSuite(job.seconds, job.seed, job.launches, job.tolerance, hidden=hidden).evaluate(path)
    except Rejected as rejected:
        return {"code": rejected.code.value, "message": rejected.message}
    except (Disturbed, SandboxError) as error:
        return {"failure": str(error)}
    except Exception as error:  # a fault of ours is never the submission's
        return {"failure": f"{type(error).__name__}: {error}"}
    return {"report": json.loads(found.to_json())}


def job_of(board: Leaderboard, lease: Lease, how: How) -> Job:
    """Return what to do for a lease; each attempt has hidden samples of its own."""
    rules = board.competition
    secret = f"{rules.secret_seed}/{lease.content_hash}/{lease.fence}"
    seed = int.from_bytes(hashlib.sha256(secret.encode()).digest()[:7], "big")
    hidden = None if how.hidden is None else str(how.hidden)
    return Job(lease.path.read_bytes(), seed, how.seconds, hidden, how.launches, how.tolerance, rules.division)


def tell(board: Leaderboard, lease: Lease, outcome: Outcome) -> None:
    """Say what was found; nothing is said if the lease is over, for then somebody else measures."""
    with suppress(LeaseLost):
        if "report" in outcome:
            board.score(lease, outcome["report"], now=now())
        elif "code" in outcome:
            board.reject(lease, Rejected(Code(outcome["code"]), outcome["message"]), now=now())
        else:
            board.fail(lease, outcome["failure"], now=now())


def drain(board: Leaderboard, how: How | None = None, told: Told | None = None, worker: str = "") -> int:
    """Measure what waits, one after the other, in this process; return how many were done."""
    done, worker = 0, worker or f"{socket.gethostname()}-{os.getpid()}"
    while (lease := board.lease(worker, now=now())) is not None:
        with alive(board, [lease]):
            outcome = measure(job_of(board, lease, how or How()))
        tell(board, lease, outcome)
        done += 1
        if told is not None:
            told(lease, outcome)
    return done


def drain_on_cluster(board: Leaderboard, scheduler: str, how: How | None = None, told: Told | None = None) -> int:
    """Do the same on the workers of a Dask cluster, one submission on each at a time; return how many were done.

    The workers need this package, and a single thread each: `dask worker --nthreads 1`.

    Raises
    ------
    RuntimeError
        If the cluster has no worker, or one with several threads, where measurements would disturb each other.
    """
    import dask
    from distributed import Client

    running: dict[Any, Lease] = {}
    done = 0
    name = f"{socket.gethostname()}-{os.getpid()}"
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        Client(scheduler, set_as_default=False) as client,
    ):
        slots = _slots(client)
        with alive(board, running.values()):
            while True:
                while len(running) < slots and (lease := board.lease(name, now=now())) is not None:
                    job = job_of(board, lease, how or How())
                    running[client.submit(measure, job, pure=False, retries=0)] = lease
                if not running:
                    return done
                for future in [future for future in running if future.done()]:
                    lease = running.pop(future)
                    outcome = _outcome(future)
                    tell(board, lease, outcome)
                    done += 1
                    if told is not None:
                        told(lease, outcome)
                time.sleep(0.05)
                slots = max(1, len(client.scheduler_info(n_workers=-1)["workers"]))


def _slots(client: Any) -> int:
    workers = client.scheduler_info(n_workers=-1)["workers"]
    if not workers:
        raise RuntimeError("the cluster has no workers: start some, dask worker --nthreads 1 ADDRESS")
    if any(worker["nthreads"] != 1 for worker in workers.values()):
        raise RuntimeError("a worker has several threads, and runs would disturb each other: use --nthreads 1")
    return len(workers)


def _outcome(future: Future[Outcome]) -> Outcome:
    try:
        return future.result()
    except Exception as error:  # such as a worker that was killed
        return {"failure": f"the worker is gone: {type(error).__name__}"}


@contextmanager
def alive(board: Leaderboard, leases: Any) -> Iterator[None]:
    """Give signs of life for some leases while something is done."""
    over = threading.Event()

    def beat() -> None:
        while not over.wait(board.lease_time.total_seconds() / 3):
            for lease in list(leases):
                with suppress(LeaseLost):
                    board.heartbeat(lease, now=now())

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
