"""Writing a file as a whole or not at all."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

from tinytorch.data.files import write


def write_text(text: str, path: str | PathLike[str]) -> None:
    """Write a text file: whoever opens it sees the old content or the new, never a part.

    Raises
    ------
    FileNotFoundError
        If there is no folder to put it into.
    IsADirectoryError
        If the path is a folder.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {path.parent} to write {path.name} into: make it first")
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder: name a file in it")
    write(path, text.encode())
