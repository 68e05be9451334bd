"""An application on a real server of this machine, for the length of a test."""

import contextlib
import importlib
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import uvicorn

from tinytorch.benchmarks.tinymlperf.leaderboard import Leaderboard
from tinytorch.benchmarks.tinymlperf.web import create_app

boards = importlib.import_module("tests.20_benchmarking.boards")


@contextlib.contextmanager
def served(app: Any) -> Iterator[str]:
    """Serve an application on 127.0.0.1 and give its origin."""
    # asyncio sends small pieces at once only on sockets that name their protocol; others wait 40 ms for each page.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listening:
        listening.bind(("127.0.0.1", 0))
        config = uvicorn.Config(app, log_level="critical", lifespan="off", ws="none")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        while not server.started and thread.is_alive():
            time.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


class Site:
    """A competition that is served, its clock and its check in the test's hands.

    Attributes
    ----------
    now
        What time it is.
    checked
        The contents that the check was given.
    refusal
        What the check says.
    """

    def __init__(self, board: Leaderboard, **options: Any) -> None:
        self.board, self.now, self.checked, self.refusal = board, boards.NOW, [], None
        self.app = create_app(board, check=self._check, clock=lambda: self.now, **options)

    def _check(self, path: Path) -> str | None:
        self.checked.append(path.read_bytes())
        return self.refusal

    def join(self, pseudonym: str | None = None) -> tuple[Any, dict[str, str]]:
        """Return a new participant and the header with the token."""
        account = self.board.add_participant(pseudonym, now=self.now)
        return self.board.authenticate(account.token), {"Authorization": f"Bearer {account.token}"}
