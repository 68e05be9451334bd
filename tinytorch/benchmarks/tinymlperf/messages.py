"""What goes between an evaluator and the process that runs a submission: small headers and arrays, with little delay.

A message is three lengths of 8 bytes, a header in JSON, and the bytes of its arrays. Where arrays are large and the
system allows it, their bytes lie in memory that both processes share, because a pipe copies them twice. What the
evaluator reads comes from a process that it does not trust: nothing is allocated by that process's word alone, nothing
is unpickled, and shared bytes are copied before they are looked at.
"""

from __future__ import annotations

import io
import json
import math
import mmap
import struct
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from tinytorch.benchmarks.tinymlperf.file import DTYPES

_LENGTHS = struct.Struct("<QQQ")
_MOST_HEADER = 2**16
_AT_ONCE = 2**14  # bytes of arrays: up to here a pipe is as fast as shared memory
_ALIGNMENT = 64  # of arrays, which are read where they arrive
_DTYPES = {dtype.str: dtype for dtype in (*DTYPES.values(), np.dtype("<f8"))}


class BadMessage(ValueError):
    """The other side sent what is no message, or a larger one than was allowed."""


class Message(NamedTuple):
    """A header and the bytes of arrays, each at a multiple of 64."""

    header: bytes
    chunks: list[np.ndarray]
    size: int


def encode(header: Mapping[str, Any], arrays: Sequence[np.ndarray] = ()) -> Message:
    """Return a message. A TypeError says which arrays are not sent."""
    described, chunks, size = [], [], 0
    for array in arrays:
        array = np.asarray(array, array.dtype.newbyteorder("<"), order="C")
        if array.dtype.str not in _DTYPES:
            raise TypeError(f"arrays of {array.dtype} are not sent: convert them to one of {', '.join(_DTYPES)}")
        described.append([array.dtype.str, array.shape])
        chunks.append(array.reshape(-1).view(np.uint8))
        size += _padded(array.nbytes)
    return Message(json.dumps({**header, "arrays": described}).encode(), chunks, size)


def decode(header: bytes, data: np.ndarray) -> tuple[dict[str, Any], list[np.ndarray]]:
    """Return what a message says and its arrays, which share the memory of `data`.

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
        if len(shape) > 32 or not all(type(n) is int and 0 <= n < 2**31 for n in shape):
            raise BadMessage("a shape that is none")
        end = begin + dtype.itemsize * math.prod(shape)
        if end > len(data):
            raise BadMessage("an array that is larger than what was sent")
        arrays.append(data[begin:end].view(dtype).reshape(shape))
        begin = _padded(end)
    if begin != len(data):
        raise BadMessage("bytes that belong to no array")
    return fields, arrays


class Channel:
    """One end of two pipes, on which the sides take turns, and of memory that both share.

    Parameters
    ----------
    source, target
        The pipes to read from and to write to.
    incoming, outgoing
        Shared memory that the other side writes to, and that this side does.
    trusting
        Whether arrays may be used where the other side can still change them.
    """

    def __init__(
        self,
        source: io.FileIO,
        target: io.FileIO,
        incoming: mmap.mmap | None = None,
        outgoing: mmap.mmap | None = None,
        trusting: bool = False,
    ) -> None:
        self._source, self._target, self._trusting = source, target, trusting
        self._incoming = _bytes_of(incoming)
        self._outgoing = _bytes_of(outgoing)
        self._start = bytearray(_LENGTHS.size + _MOST_HEADER + _AT_ONCE)
        self._data = np.empty(0, np.uint8)

    def write(self, message: Message) -> None:
        """Send a message."""
        header, chunks, size = message
        shared = _AT_ONCE < size <= len(self._outgoing)
        start = _LENGTHS.pack(len(header), 0 if shared else size, size if shared else 0) + header
        if shared:
            begin = 0
            for chunk in chunks:
                self._outgoing[begin : begin + len(chunk)] = chunk
                begin += _padded(len(chunk))
            self._put(start)
            return
        padded = [(chunk.data, bytes(_padded(len(chunk)) - len(chunk))) for chunk in chunks]
        if size <= _AT_ONCE:
            self._put(start + b"".join(part for pair in padded for part in pair))
            return
        for part in (start, *(part for pair in padded for part in pair)):
            self._put(part)

    def read(self, most: int) -> tuple[bytes, np.ndarray]:
        """Return the next message for `decode`; the bytes of its arrays stay until the next call.

        Raises
        ------
        EOFError
            If the other side closed the pipe.
        BadMessage
            If the message is too long, its arrays take over `most` bytes, or more follows that was not asked for.
            The channel is of no use then.
        """
        view = memoryview(self._start)
        found = self._get(view, _LENGTHS.size)
        length, sent, shared = _LENGTHS.unpack_from(self._start)
        if length > _MOST_HEADER or sent + shared > most or shared > len(self._incoming) or (sent and shared):
            raise BadMessage(f"{sent + shared:,} bytes with a header of {length:,}: at most {most:,} are taken")
        begin, data = _LENGTHS.size + length, self._room(sent)
        if found < begin:
            found += self._get(view[found:], begin - found)
        early = min(found - begin, sent)
        if found > begin + early:
            raise BadMessage("more bytes than it announced")
        data.data[:early] = view[begin : begin + early]
        if early < sent:
            self._get(data.data[early:], sent - early)
        if shared:
            data = self._incoming[:shared]
            if not self._trusting:
                room = self._room(shared)
                room[:] = data
                data = room
        return bytes(view[_LENGTHS.size : begin]), data

    def close(self) -> None:
        """Close the pipes."""
        self._source.close()
        self._target.close()

    def _room(self, size: int) -> np.ndarray:
        """Return memory of this side's own, the same each time: new memory would be mapped while the clock runs."""
        if size > len(self._data):
            raw = np.empty(size + _ALIGNMENT, np.uint8)
            self._data = raw[-raw.ctypes.data % _ALIGNMENT :]
        return self._data[:size]

    def _put(self, part: bytes | memoryview) -> None:
        view, done = memoryview(part), 0
        while done < len(view):
            done += self._target.write(view[done:])

    def _get(self, view: memoryview, least: int) -> int:
        """Read as many bytes as there are, but wait for `least`. Returns how many."""
        done = 0
        while done < least:
            count = self._source.readinto(view[done:])
            if not count:
                raise EOFError("the pipe was closed")
            done += count
        return done


def _padded(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT


def _bytes_of(memory: mmap.mmap | None) -> np.ndarray:
    return np.empty(0, np.uint8) if memory is None else np.frombuffer(memory, np.uint8)
