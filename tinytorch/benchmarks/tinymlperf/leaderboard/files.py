"""Files by the SHA-256 of their content: received piece by piece, counted, and put in place whole."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path
from types import TracebackType

from tinytorch.benchmarks.tinymlperf.leaderboard.refusal import Refusal, Refused


class FileStore:
    """A folder of files that are called after their content.

    Parameters
    ----------
    folder
        Made if it is not there.
    max_bytes
        The largest file that is received.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.folder, self.max_bytes = folder, max_bytes
        folder.mkdir(parents=True, exist_ok=True)

    def path(self, content_hash: str) -> Path:
        """Return where the file with this content lies, if it was kept."""
        return self.folder / content_hash[:2] / f"{content_hash}.safetensors"

    def receive(self) -> Incoming:
        """Return a new file to write to. Used as a context, it is gone in the end unless it was kept."""
        return Incoming(self)


class Incoming:
    """A file that is being received.

    Attributes
    ----------
    path
        Where it lies until it is kept.
    size
        The bytes so far.
    """

    def __init__(self, store: FileStore) -> None:
        self._store, self._hash, self.size = store, hashlib.sha256(), 0
        handle, name = tempfile.mkstemp(prefix="incoming-", dir=store.folder)
        self._file, self.path = os.fdopen(handle, "wb"), Path(name)

    def __enter__(self) -> Incoming:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()
        self.path.unlink(missing_ok=True)

    def write(self, piece: bytes) -> None:
        """Add some bytes; Refused as soon as there are too many."""
        self.size += len(piece)
        if self.size > self._store.max_bytes:
            raise Refused(Refusal.TOO_LARGE, f"a file has at most {self._store.max_bytes} bytes")
        self._file.write(piece)
        self._hash.update(piece)

    def finish(self) -> str:
        """Return the hash of the content when all of it has been written, and is on the disk."""
        if not self._file.closed:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
        return self._hash.hexdigest()

    def keep(self) -> Path:
        """Put the file in its place, unless the same content lies there already."""
        target = self._store.path(self.finish())
        if not target.exists():
            target.parent.mkdir(exist_ok=True)
            os.replace(self.path, target)
        return target
