"""What goes through the pipes between an evaluator and the process that runs a submission: small headers and arrays.

A message is two lengths of 8 bytes, a header in JSON, and the bytes of its arrays. What the evaluator reads comes from
a process that it does not trust: nothing is allocated by that process's word alone, and nothing is unpickled.
"""

from __future__ import annotations

import io
import json
import math
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tinytorch.benchmarks.tinymlperf.file import DTYPES

MOST_HEADER = 2**16
_LENGTHS = struct.Struct("<QQ")
_AT_ONCE = 2**14  # below, one write costs less than three
_DTYPES = {dtype.str: dtype for dtype in (*DTYPES.values(), np.dtype("<f8"))}


class BadMessage(ValueError):
    """The other side sent what is no message, or a larger one than was allowed."""


def encode(header: Mapping[str, Any], arrays: Sequence[np.ndarray] = ()) -> list[bytes | memoryview]:
    """Return the parts of a message, to be written one after the other."""
    arrays = [np.asarray(a, a.dtype.newbyteorder("<"), order="C") for a in arrays]
    for array in arrays:
        if array.dtype.str not in _DTYPES:
            raise TypeError(f"arrays of {array.dtype} are not sent: convert them to one of {', '.join(_DTYPES)}")
    text = json.dumps({**header, "arrays": [[a.dtype.str, a.shape] for a in arrays]}).encode()
    size = sum(a.nbytes for a in arrays)
    start = _LENGTHS.pack(len(text), size) + text
    if size <= _AT_ONCE:
        return [start + b"".join(a.tobytes() for a in arrays)]
    return [start, *(a.reshape(-1).view(np.uint8).data for a in arrays)]


def write(pipe: io.FileIO, parts: Sequence[bytes | memoryview]) -> None:
    """Write the parts of a message."""
    for part in parts:
        view, done = memoryview(part), 0
        while done < len(view):
            done += pipe.write(view[done:])


def read(pipe: io.FileIO, most: int) -> tuple[bytearray, np.ndarray]:
    """Return the next message, its header and the bytes of its arrays, unread.

    Raises
    ------
    EOFError
        If the other side closed the pipe.
    BadMessage
        If it announces a header over `MOST_HEADER` or arrays of over `most` bytes. The pipe is of no use then.
    """
    lengths = bytearray(_LENGTHS.size)
    _fill(pipe, memoryview(lengths))
    length, size = _LENGTHS.unpack(lengths)
    if length > MOST_HEADER or size > most:
        raise BadMessage(f"a header of {length:,} bytes and arrays of {size:,}: at most {MOST_HEADER:,} and {most:,}")
    header, data = bytearray(length), np.empty(size, np.uint8)
    _fill(pipe, memoryview(header))
    _fill(pipe, data.data)
    return header, data


def decode(header: bytearray, data: np.ndarray) -> tuple[dict[str, Any], list[np.ndarray]]:
    """Return what a message says and its arrays, which share the memory of `data` where they are aligned.

    Raises
    ------
    BadMessage
        If the header is not such as `encode` writes, or the arrays do not take the data exactly.
    """
    try:
        fields = json.loads(header)
        described = [(_DTYPES[name], tuple(shape)) for name, shape in fields.pop("arrays")]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise BadMessage(f"a header that cannot be read: {type(error).__name__}") from None
    arrays, begin = [], 0
    for dtype, shape in described:
        if not all(type(n) is int and n >= 0 for n in shape):
            raise BadMessage("a shape that is none")
        end = begin + dtype.itemsize * math.prod(shape)
        if end > len(data) or max(shape, default=0) > 2**31 or len(shape) > 32:
            raise BadMessage("an array that is larger than what was sent")
        array = data[begin:end].view(dtype).reshape(shape)
        arrays.append(array if array.flags.aligned else array.copy())
        begin = end
    if begin < len(data):
        raise BadMessage("bytes that belong to no array")
    return fields, arrays


def _fill(pipe: io.FileIO, view: memoryview) -> None:
    done = 0
    while done < len(view):
        count = pipe.readinto(view[done:])
        if not count:
            raise EOFError("the pipe was closed")
        done += count
