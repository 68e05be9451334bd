"""What one side sends the other receives, by pipe or by shared memory, and nothing else passes for a message."""

import io
import mmap
import os
import struct
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tinytorch.benchmarks.tinymlperf import messages
from tinytorch.benchmarks.tinymlperf.messages import BadMessage, Channel

MOST = 2**20
dtypes = st.sampled_from([np.dtype(d) for d in ("<f4", ">f4", "<f8", "i1", "<i8", "<u2")])
shapes = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=40)
arrays = st.builds(
    lambda shape, dtype: (np.arange(np.prod(shape)) % 120).astype(dtype).reshape(shape).T, shapes, dtypes
)


class Ends:
    """Two channels that lead to one another."""

    def __init__(self, shared, trusting=False):
        (a, b), (c, d) = os.pipe(), os.pipe()
        memory = (mmap.mmap(-1, MOST), mmap.mmap(-1, MOST)) if shared else (None, None)
        self.one = Channel(io.FileIO(c, "rb"), io.FileIO(b, "wb"), *memory, trusting)
        self.other = Channel(io.FileIO(a, "rb"), io.FileIO(d, "wb"), *memory[::-1], trusting)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.one.close()
        self.other.close()

    def send(self, message):
        """The message as it arrives. It may be larger than the pipe."""
        thread = threading.Thread(target=self.one.write, args=(message,))
        thread.start()
        received = self.other.read(MOST)
        thread.join()
        return received

    def arrive(self, raw):
        """Bytes as they arrive."""
        os.write(self.one._target.fileno(), raw)
        return self.other.read(MOST)


@settings(max_examples=60)
@given(st.lists(st.lists(arrays, max_size=4), min_size=1, max_size=3), st.booleans(), st.booleans())
def test_arrays_of_any_size_and_layout_arrive_as_they_were(rounds, shared, trusting):
    with Ends(shared, trusting) as ends:
        for sent in rounds:
            header, found = messages.decode(*ends.send(messages.encode({"a": "é\n", "b": [1]}, sent)))
            assert header == {"a": "é\n", "b": [1]}
            assert len(found) == len(sent)
            for there, here in zip(found, sent, strict=True):
                np.testing.assert_array_equal(there, here)
                assert there.dtype == here.dtype.newbyteorder("<")
                assert there.shape == here.shape
                assert there.flags.aligned


@pytest.mark.parametrize("size", [10, 100_000])
@pytest.mark.parametrize("shared", [True, False])
def test_what_a_stranger_sent_cannot_be_changed_afterwards(size, shared):
    with Ends(shared) as ends:
        sent = np.zeros(size, np.uint8)
        _, (found,) = messages.decode(*ends.send(messages.encode({}, [sent])))
        ends.one._outgoing[:] = 1
        assert not found.any()


def test_other_types_are_not_sent():
    for array in (np.array([None]), np.array(["a"]), np.zeros(1, np.complex64), np.zeros(1, "M8[s]")):
        with pytest.raises(TypeError, match="are not sent"):
            messages.encode({}, [array])


@pytest.mark.parametrize(
    "raw",
    [
        struct.pack("<3Q", 2**16 + 1, 0, 0),
        struct.pack("<3Q", 2**63, 0, 0),
        struct.pack("<3Q", 2, MOST + 64, 0) + b"{}",
        struct.pack("<3Q", 2, 2**63, 2**63) + b"{}",
        struct.pack("<3Q", 2, 0, MOST + 64) + b"{}",
        struct.pack("<3Q", 2, 64, 64) + b"{}" + bytes(64),
        struct.pack("<3Q", 2, 0, 0) + b"{}" + b"more",
        struct.pack("<3Q", 2, 1, 0) + b"{}" + b"more",
        b"\xff" * 100,
    ],
)
def test_lengths_that_are_lies_are_refused(raw):
    with Ends(shared=True) as ends, pytest.raises(BadMessage):
        ends.arrive(raw)


@pytest.mark.parametrize(
    "raw", [b"", b"\0" * 23, struct.pack("<3Q", 2, 0, 0) + b"{", struct.pack("<3Q", 0, 9, 0) + b"x"]
)
def test_a_message_that_ends_early_is_the_end(raw):
    with Ends(shared=False) as ends:
        os.write(ends.one._target.fileno(), raw)
        ends.one._target.close()
        with pytest.raises(EOFError):
            ends.other.read(MOST)


@pytest.mark.parametrize(
    ("header", "size"),
    [
        (b"", 0),
        (b"[]", 0),
        (b"{}", 0),
        (b"\xff", 0),
        (b"[" * 10_000, 0),
        (b'{"arrays": 3}', 0),
        (b'{"arrays": [["<f4", [16]]]}', 0),
        (b'{"arrays": [["<f4", [32]]]}', 64),
        (b'{"arrays": [["<f4", [16]]]}', 128),
        (b'{"arrays": [["<f4", [-4, -4]]]}', 64),
        (b'{"arrays": [["<f4", [0, 1e3]]]}', 0),
        (b'{"arrays": [["<f4", [true]]]}', 64),
        (b'{"arrays": [["<f4", [0, 4611686018427387904]]]}', 0),
        (b'{"arrays": [["i1", [1' + b",1" * 70 + b"]]]}", 64),
        (b'{"arrays": [["O", [1]]]}', 64),
        (b'{"arrays": [[["<f4"], [1]]]}', 64),
    ],
)
def test_a_header_that_does_not_describe_the_bytes_is_refused(header, size):
    with pytest.raises(BadMessage):
        messages.decode(header, np.zeros(size, np.uint8))


@settings(max_examples=200)
@given(st.binary(max_size=60), st.integers(0, 3))
def test_any_bytes_are_a_message_or_refused(raw, blocks):
    try:
        fields, found = messages.decode(raw, np.zeros(64 * blocks, np.uint8))
    except BadMessage:
        return
    assert isinstance(fields, dict)
    assert sum(a.nbytes for a in found) <= 64 * blocks
