"""A PostgreSQL server of the system's packages, for the length of the tests: a folder, a socket, no network."""

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

SETTINGS = {"listen_addresses": "", "fsync": "off", "shared_buffers": "32MB", "max_connections": "60"}


def find(program: str) -> str | None:
    """Return where a program of the newest PostgreSQL is."""
    installed = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{program}"), key=lambda p: int(p.parts[4]))
    return str(installed[-1]) if installed else shutil.which(program)


def as_another() -> list[str]:
    """Return what a command begins with, so that it does not run as root: PostgreSQL refuses to."""
    if os.geteuid() != 0:
        return []
    return ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]


@contextlib.contextmanager
def server() -> Iterator[str]:
    """Start a server of its own and give the URL of its database; skip the test where there is none to start."""
    if not hasattr(os, "geteuid"):
        pytest.skip("a server of PostgreSQL is started on Unix alone")
    initdb, pg_ctl = find("initdb"), find("pg_ctl")
    if initdb is None or pg_ctl is None:
        reason = "no PostgreSQL: its package postgresql has the server that these tests start"
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(reason)
    with tempfile.TemporaryDirectory(prefix="pg-", dir="/tmp") as folder:  # a socket's path has 107 bytes at most
        data, log = Path(folder, "data"), Path(folder, "log")
        if as_another():
            shutil.chown(folder, "nobody", "nogroup")
        settings = " ".join(f"-c {name}={value or repr('')}" for name, value in SETTINGS.items())
        _run(initdb, "-D", data, "-U", "tester", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
        _run(pg_ctl, "-D", data, "-l", log, "-w", "-o", f"-k {folder} {settings}", "start")
        try:
            yield f"postgresql+psycopg://tester@/postgres?host={folder}"
        finally:
            _run(pg_ctl, "-D", data, "-w", "-m", "immediate", "stop")


def _run(*command: str | Path) -> None:
    # The server inherits what is given here: a pipe would stay open as long as it runs.
    with tempfile.TemporaryFile("w+") as output:
        done = subprocess.run(
            [*as_another(), *map(str, command)], stdout=output, stderr=subprocess.STDOUT, cwd="/", check=False
        )
        output.seek(0)
        assert done.returncode == 0, output.read()
