"""Reading the data files that ship with the package, each checked against its card, and writing files at once."""

from __future__ import annotations

import gzip
import hashlib
import json
import lzma
import os
import secrets
import zlib
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(__file__).parent / "files"
_RESTORE = "Get it back with: git checkout -- tinytorch/data/files"


class DataError(RuntimeError):
    """A data file is missing or damaged; the message says what to run."""


def write(path: Path, raw: bytes) -> None:
    """Replace a file at once: readers see the old contents or the new ones, also after a crash or Ctrl-C."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{secrets.token_hex(8)}.part")  # two may write at the same time
    try:
        with temporary.open("xb") as file:
            file.write(raw)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def card(name: str) -> dict[str, Any]:
    """Return the card of a data set: its source, licence, and the SHA-256 of each of its files, unpacked."""
    path = FOLDER / f"{name}.json"
    try:
        loaded: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}). {_RESTORE}") from None
    return loaded


def source_of(name: str) -> dict[str, Any]:
    """Return what the card of a model trained on a data set says of it: title, licence, and SHA-256 of its files."""
    known = card(name)
    used = {file: entry["sha256"] for file, entry in known["files"].items()}
    return {"title": known["title"], "licence": known["licence"], "sha256_unpacked": used}


def read(name: str, file: str, folder: Path = FOLDER) -> bytes:
    """Return the unpacked bytes of one file of the data set `name`.

    Raises
    ------
    DataError
        If the file is missing, or its SHA-256 is not the one in the card.
    """
    known = card(name)
    path = folder / file
    try:
        raw = (lzma if path.suffix == ".xz" else gzip).decompress(path.read_bytes())
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        raise DataError(f"{path} cannot be read ({error}). {known['restore']}") from None
    found = hashlib.sha256(raw).hexdigest()
    if found != known["files"][file]["sha256"]:
        raise DataError(f"{path} is damaged: its SHA-256, unpacked, is not the card's. {known['restore']}")
    return raw


def parse_idx(raw: bytes) -> np.ndarray:
    """Read an array of unsigned bytes in the IDX format: zeros, type, rank, big-endian sizes, then the elements.

    Raises
    ------
    ValueError
        If the header is none of IDX, or its sizes do not match the number of bytes.
    """
    if len(raw) < 4 or raw[:3] != b"\0\0\x08":
        raise ValueError(f"not an IDX file of unsigned bytes: it begins with {raw[:4]!r}")
    start = 4 + 4 * raw[3]
    sizes = tuple(int(n) for n in np.frombuffer(raw[4:start], ">u4"))
    if len(raw) - start != np.prod(sizes, dtype=object):
        raise ValueError(f"the IDX header says {sizes}, but {len(raw) - start} bytes follow")
    return np.frombuffer(raw, np.uint8, offset=start).reshape(sizes)


def format_idx(array: np.ndarray) -> bytes:
    """Write an array of unsigned bytes in the IDX format.

    >>> parse_idx(format_idx(np.array([[1, 2]], np.uint8)))
    array([[1, 2]], dtype=uint8)
    """
    if array.dtype != np.uint8:
        raise ValueError(f"this writes unsigned bytes, not {array.dtype}")
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    return header + array.tobytes()
