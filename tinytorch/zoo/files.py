"""Weights on disk: safetensors with a JSON card beside them, replaced at once and never half-written."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load as parse
from safetensors.numpy import save as pack

from tinytorch.data.files import DataError, write
from tinytorch.zoo.sparse_files import KEY, pack_sparse, unpack_sparse

FOLDER = Path(__file__).parent / "weights"


def save_arrays(path: Path, arrays: dict[str, np.ndarray], metadata: dict[str, str] | None = None) -> None:
    """Write arrays of any shape as safetensors, those with many zeros as mask and values: see `stored_bytes`.

    A ValueError if the metadata has an entry "sparse".
    """
    write(path, pack(*pack_sparse(arrays, metadata)))


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read the arrays of a safetensors file. A DataError says what is wrong with it."""
    try:
        return _parse(path.read_bytes())
    except (OSError, SafetensorError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}") from None


def _parse(raw: bytes) -> dict[str, np.ndarray]:
    entries = parse(raw)  # checks the header, too
    header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    return unpack_sparse(entries, header.get("__metadata__") or {})


def read_metadata(path: Path) -> dict[str, str]:
    """Return the metadata that `save_arrays` was given. A DataError says what is wrong with it."""
    try:
        with safe_open(path, framework="np") as file:
            return {key: value for key, value in (file.metadata() or {}).items() if key != KEY}
    except (OSError, SafetensorError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}") from None


def save_model(name: str, state: dict[str, np.ndarray], card: dict[str, Any], folder: Path = FOLDER) -> Path:
    """Write the weights and the card of a model; the card gets the weights' size and SHA-256."""
    path = folder / f"{name}.safetensors"
    save_arrays(path, state)
    raw = path.read_bytes()
    card = card | {"bytes": len(raw), "sha256": hashlib.sha256(raw).hexdigest()}
    write(folder / f"{name}.json", (json.dumps(card, indent=2) + "\n").encode())
    return path


def read_card(name: str, folder: Path = FOLDER) -> dict[str, Any]:
    """Return the card of a model: how it was trained, on what, and what it reaches. A DataError if it is missing."""
    path = folder / f"{name}.json"
    try:
        card: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}. {_restore(path)}") from None
    return card


def read_state(name: str, folder: Path = FOLDER) -> dict[str, np.ndarray]:
    """Return the weights of a model by path. A DataError if the file is missing, damaged or not the card's."""
    path = folder / f"{name}.safetensors"
    card = read_card(name, folder)
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}. {_restore(path)}") from None
    if hashlib.sha256(raw).hexdigest() != card["sha256"]:
        raise DataError(f"{path} is damaged: its SHA-256 is not the card's. {_restore(path)}")
    try:
        return _parse(raw)
    except (SafetensorError, ValueError) as error:
        raise DataError(f"{path} is damaged: {error}. {_restore(path)}") from None


def _restore(path: Path) -> str:
    return f"Get it back with: git checkout -- {path}"
