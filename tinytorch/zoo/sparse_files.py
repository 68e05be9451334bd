"""Arrays with many zeros in safetensors: one bit for each number, and the numbers that are not zero.

`NAME` becomes two entries, `NAME.mask` (uint8, the bits as `np.packbits` lays them out) and `NAME.values`; its shape
stands in the file's metadata, under "sparse". What is read back is the dense array, bit for bit: only numbers whose
bits are all 0 count as zero, so -0.0 is a value.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping

import numpy as np

KEY = "sparse"
_DESCRIPTION = 256  # bytes, about: what a second entry and the shape take in a file's header


def stored_bytes(array: np.ndarray) -> int:
    """Return the bytes of an array in a file: all of its numbers, or the mask and those that are not zero.

    The mask is taken where it saves more than the 256 bytes that describe it in the header, which is not counted here.

    >>> weight = np.zeros((100, 80), np.float32)
    >>> weight[:10] = 1.0
    >>> weight.nbytes, stored_bytes(weight)  # 8,000 bits, and 800 numbers
    (32000, 4200)
    """
    kept = _mask(array)
    return array.nbytes if kept is None else _sparse_bytes(array, kept)


def pack_sparse(
    arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None
) -> tuple[dict[str, np.ndarray], dict[str, str] | None]:
    """Return the entries of a file and its metadata: arrays with many zeros as mask and values, others as they are.

    A ValueError if the metadata has an entry "sparse": that name is taken.
    """
    if metadata and KEY in metadata:
        raise ValueError(f"metadata cannot have an entry {KEY!r}: the shapes of sparse arrays stand there")
    entries: dict[str, np.ndarray] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    for name, numbers in arrays.items():
        array, names = np.asarray(numbers, order="C"), _entries_of(name)
        kept = _mask(array)
        if kept is None or arrays.keys() & set(names):
            entries[name] = array
        else:
            shapes[name] = array.shape
            entries |= zip(names, (np.packbits(kept), array.reshape(-1)[kept]), strict=True)
    if not shapes:
        return entries, None if metadata is None else dict(metadata)
    return entries, {**(metadata or {}), KEY: json.dumps(shapes, separators=(",", ":"))}


def unpack_sparse(entries: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> dict[str, np.ndarray]:
    """Return the arrays that `pack_sparse` took. A ValueError says which array is damaged, and how."""
    shapes = json.loads(metadata.get(KEY, "{}"))
    if not isinstance(shapes, dict):
        raise ValueError(f"the metadata {KEY!r} has to name arrays and their shapes, got {metadata[KEY]!r}")
    arrays = dict(entries)
    for name, shape in shapes.items():
        if name in entries or any(part not in arrays for part in _entries_of(name)):
            raise ValueError(f"the sparse array {name!r} has to stand there as mask and values, and only so")
        arrays[name] = _dense(name, shape, *(arrays.pop(part) for part in _entries_of(name)))
    return arrays


def _dense(name: str, shape: object, mask: np.ndarray, values: np.ndarray) -> np.ndarray:
    if not isinstance(shape, list) or not all(type(n) is int and n > 0 for n in shape):
        raise ValueError(f"the sparse array {name!r} has no shape: {shape!r}")
    size = math.prod(shape)
    if mask.dtype != np.uint8 or mask.shape != (-(-size // 8),):
        raise ValueError(f"{size} numbers of {name!r} need a mask of {-(-size // 8)} bytes, got {mask.nbytes}")
    bits = np.unpackbits(mask)
    if bits[size:].any():
        raise ValueError(f"the mask of {name!r} has bits beyond its {size} numbers")
    if values.shape != (int(bits.sum()),):
        raise ValueError(f"the mask of {name!r} counts {int(bits.sum())} values, but there are {values.size}")
    dense = np.zeros(size, values.dtype)
    dense[bits[:size].view(bool)] = values
    return dense.reshape(shape)


def _entries_of(name: str) -> tuple[str, str]:
    return f"{name}.mask", f"{name}.values"


def _mask(array: np.ndarray) -> np.ndarray | None:
    """Tell of each number, in C order, whether a bit of it is set. None if the array is smaller as it is."""
    if array.dtype.kind not in "biuf" or array.itemsize > 8:
        return None
    kept = array.reshape(-1).view(f"u{array.itemsize}") != 0
    return kept if _sparse_bytes(array, kept) + _DESCRIPTION < array.nbytes else None


def _sparse_bytes(array: np.ndarray, kept: np.ndarray) -> int:
    return -(-array.size // 8) + int(kept.sum()) * array.itemsize
