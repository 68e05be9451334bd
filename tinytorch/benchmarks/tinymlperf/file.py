"""Submissions on disk: safetensors files whose header is checked before anything that it declares is allocated.

A file is 8 bytes with the length of the header, the header in JSON, then the data of all tensors without gaps. The
package `safetensors` reads and writes the same files; it takes the header's word for much that is refused here.

Source of the format: https://github.com/huggingface/safetensors, README, "Format".
"""

from __future__ import annotations

import io
import json
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tinytorch.benchmarks.tinymlperf.limits import Limits
from tinytorch.benchmarks.tinymlperf.rejection import Code, Rejected, quoted
from tinytorch.benchmarks.tinymlperf.strict_json import parse_json
from tinytorch.data import files

DTYPES: dict[str, np.dtype] = {
    "F32": np.dtype("<f4"),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "U32": np.dtype("<u4"),
    "I16": np.dtype("<i2"),
    "U16": np.dtype("<u2"),
    "I8": np.dtype("i1"),
    "U8": np.dtype("u1"),
}
_TAGS = {dtype: tag for tag, dtype in DTYPES.items()}
_METADATA = "__metadata__"
# no path, and nothing that looks alike
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*(\.[A-Za-z0-9_][A-Za-z0-9_-]*)*")


@dataclass(frozen=True)
class _Tensor:
    """What the header says of a tensor: its bytes are those from `begin` to `end` of the data."""

    name: str
    dtype: np.dtype
    shape: tuple[int, ...]
    begin: int
    end: int


def read(path: str | Path, limits: Limits | None = None) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    """Return the metadata and the arrays of a file: read-only, aligned, finite, in the order of the header.

    Raises
    ------
    Rejected
        If there is anything wrong with the file.
    """
    return unpack(read_bytes(path, limits), limits)


def read_bytes(path: str | Path, limits: Limits | None = None) -> bytes:
    """Return what a regular file holds. Rejected if there is none, or if it is too large, without reading of it."""
    limits = limits or Limits()
    try:
        file = io.FileIO(path, "rb", opener=_open)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise Rejected(Code.NOT_A_FILE, f"the file cannot be opened: {reason}") from None
    with file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise Rejected(Code.NOT_A_FILE, "the path is not a regular file: give that of a safetensors file")
        _check_size(found.st_size, limits)
        raw = file.read(found.st_size) or b""
        if len(raw) < found.st_size or file.read(1):
            raise Rejected(Code.TRUNCATED, "the file changed while it was read: try again")
        return raw


def unpack(raw: bytes, limits: Limits | None = None) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    """Return what `read` does, from the bytes of a file. The arrays share them where they are aligned in there."""
    limits = limits or Limits()
    _check_size(len(raw), limits)
    if len(raw) < 8:
        raise Rejected(Code.TRUNCATED, f"the file has {len(raw)} bytes; the first 8 say how long its header is")
    length, rest = int.from_bytes(raw[:8], "little"), len(raw) - 8
    if length > limits.header_bytes:
        what = f"the first 8 bytes tell of a header of {length:,} bytes, over {limits.header_bytes:,}"
        raise Rejected(Code.TOO_LARGE, f"{what}: send a safetensors file, as `tinymlperf export` writes it")
    if length > rest:
        raise Rejected(Code.TRUNCATED, f"the header has {length:,} bytes, but the file ends after {rest:,}")
    metadata, tensors = _header(raw[8 : 8 + length], limits)
    _check_layout(tensors, rest - length)
    data = np.frombuffer(raw, np.uint8)[8 + length :]
    return metadata, {tensor.name: _array(data, tensor) for tensor in tensors}


def write(path: str | Path, metadata: Mapping[str, str], arrays: Mapping[str, np.ndarray]) -> None:
    """Write a file that `read` takes, at once: others see the old file or the new one, also after a crash.

    The same arguments give the same bytes.

    Raises
    ------
    Rejected
        If `read` would refuse the file. Nothing is written then.
    """
    raw = pack(metadata, arrays)
    unpack(raw)
    files.write(Path(path), raw)


def pack(metadata: Mapping[str, str], arrays: Mapping[str, np.ndarray]) -> bytes:
    """Return the bytes of a file: larger types first, which aligns all; equal types by name.

    Rejected if an array, of whatever shape, is of a type that files do not hold.
    """
    header: dict[str, Any] = {_METADATA: dict(sorted(metadata.items()))} if metadata else {}
    chunks: list[bytes] = []
    begin = 0
    for name, array in sorted(arrays.items(), key=lambda item: (-item[1].dtype.itemsize, item[0])):
        dtype = array.dtype.newbyteorder("<")
        if dtype not in _TAGS:
            raise Rejected(Code.BAD_DTYPE, f"tensor {quoted(name)} is {array.dtype}; {_known_dtypes()}")
        check_name(name, Limits())  # before one called as the metadata takes their place
        chunks.append(array.astype(dtype, copy=False).tobytes())
        offsets = [begin, begin + len(chunks[-1])]
        header[name] = {"dtype": _TAGS[dtype], "shape": list(array.shape), "data_offsets": offsets}
        begin = offsets[1]
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # aligns the data
    return b"".join([len(text).to_bytes(8, "little"), text, *chunks])


def check_name(name: str, limits: Limits) -> str:
    """Return a name of a tensor or value that names may be: letters, digits, _ and - in parts joined by dots."""
    if len(name) > limits.name_length:
        raise Rejected(Code.BAD_NAME, f"the name {quoted(name)} has {len(name)} characters, over {limits.name_length}")
    if name == _METADATA or not _NAME.fullmatch(name):
        raise Rejected(
            Code.BAD_NAME,
            f"{quoted(name)} is no name: names are ASCII letters, digits, _ and - in parts joined by dots",
        )
    return name


def _open(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))  # a pipe that nobody writes to does not wait


def _check_size(size: int, limits: Limits) -> None:
    if size > limits.file_bytes:
        raise Rejected(Code.TOO_LARGE, f"the file has {size:,} bytes, over {limits.file_bytes:,}")


def _header(raw: bytes, limits: Limits) -> tuple[dict[str, str], list[_Tensor]]:
    if not raw.startswith(b"{"):
        raise Rejected(Code.BAD_HEADER, "the header is no JSON object: is this a safetensors file?")
    header = parse_json(raw, limits, "the header")
    metadata = _metadata(header.pop(_METADATA, {}), limits)
    if len(header) > limits.tensors:
        raise Rejected(Code.TOO_LARGE, f"the file has {len(header):,} tensors, over {limits.tensors:,}")
    return metadata, [_tensor(name, entry, limits) for name, entry in header.items()]


def _metadata(entries: Any, limits: Limits) -> dict[str, str]:
    if not isinstance(entries, dict):
        raise Rejected(Code.BAD_METADATA, "the metadata are no JSON object")
    if len(entries) > limits.metadata_entries:
        raise Rejected(Code.TOO_LARGE, f"the metadata have {len(entries):,} entries, over {limits.metadata_entries}")
    for key, value in entries.items():
        check_name(key, limits)
        # JSON can spell halves of surrogate pairs, which are no text
        if not isinstance(value, str) or any("\ud800" <= c <= "\udfff" for c in value):
            raise Rejected(Code.BAD_METADATA, f"the metadata's {quoted(key)} is no text")
    return entries


def _tensor(name: str, entry: Any, limits: Limits) -> _Tensor:
    check_name(name, limits)
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise Rejected(Code.BAD_HEADER, f"tensor {quoted(name)} needs dtype, shape and data_offsets, and nothing else")
    tag, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(tag, str) or tag not in DTYPES:
        raise Rejected(Code.BAD_DTYPE, f"tensor {quoted(name)} has type {quoted(str(tag))}; {_known_dtypes()}")
    if not _is_sizes(shape):
        raise Rejected(Code.BAD_SHAPE, f"tensor {quoted(name)}: its shape is no list of whole numbers from 0")
    if len(shape) > limits.rank or any(n > limits.dimension for n in shape):
        raise Rejected(
            Code.TOO_LARGE,
            f"tensor {quoted(name)} has over {limits.rank} dimensions or one over {limits.dimension:,}",
        )
    product = DTYPES[tag].itemsize
    for n in shape:
        product *= max(n, 1)  # a zero must not hide what the others are
    if product > limits.file_bytes:
        raise Rejected(Code.TOO_LARGE, f"tensor {quoted(name)} has {product:,} bytes, over {limits.file_bytes:,}")
    if not _is_sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise Rejected(Code.BAD_HEADER, f"tensor {quoted(name)}: data_offsets are two whole numbers, begin and end")
    stored, declared = offsets[1] - offsets[0], 0 if 0 in shape else product
    if stored != declared:
        raise Rejected(
            Code.BAD_SHAPE, f"tensor {quoted(name)} takes {declared:,} bytes by its shape, {stored:,} by its offsets"
        )
    return _Tensor(name, DTYPES[tag], tuple(shape), *offsets)


def _is_sizes(value: Any) -> bool:
    return isinstance(value, list) and all(type(n) is int and n >= 0 for n in value)  # a bool is no size


def _check_layout(tensors: list[_Tensor], size: int) -> None:
    """Refuse tensors that do not cover the data exactly."""
    position = 0
    for tensor in sorted(tensors, key=lambda t: (t.begin, t.end)):
        name = quoted(tensor.name)
        if tensor.end > size:
            raise Rejected(
                Code.OUT_OF_BOUNDS, f"tensor {name} ends at byte {tensor.end:,} of {size:,}: is the file cut?"
            )
        if tensor.begin < position:
            raise Rejected(Code.OVERLAP, f"tensor {name} begins at byte {tensor.begin:,}, before another ends")
        if tensor.begin > position:
            raise Rejected(
                Code.GAP, f"the bytes {position:,} to {tensor.begin:,} before tensor {name} are of no tensor"
            )
        position = tensor.end
    if position < size:
        raise Rejected(Code.GAP, f"the last {size - position:,} bytes of the file belong to no tensor: remove them")


def _array(data: np.ndarray, tensor: _Tensor) -> np.ndarray:
    array = data[tensor.begin : tensor.end].view(tensor.dtype).reshape(tensor.shape)
    if not array.flags.aligned:
        array = array.copy()
        array.flags.writeable = False
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise Rejected(Code.NOT_FINITE, f"tensor {quoted(tensor.name)} holds NaN or an infinite number")
    return array


def _known_dtypes() -> str:
    return "known types are " + ", ".join(DTYPES)
