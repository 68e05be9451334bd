"""Files that a submission must not be, each with the code that refuses it, and the means to build more."""

import json
import os
import struct
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tinytorch.benchmarks.tinymlperf.limits import Limits
from tinytorch.benchmarks.tinymlperf.rejection import Code

LIMITS = Limits()
NUMBERS = struct.pack("<2f", 1.0, 2.0)


def entry(dtype="F32", shape=(2,), offsets=(0, 8)):
    """What a header says of a tensor."""
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def assemble(header, data=NUMBERS, length=None):
    """A file of a header, an object or its text, and data. The length may be a lie."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def one(dtype="F32", shape=(2,), offsets=(0, 8), data=NUMBERS, name="w"):
    """A file of one tensor."""
    return assemble({name: entry(dtype, shape, offsets)}, data)


def named(name):
    return one(name=name)


def text_of(value, key="shape"):
    """A file of one tensor with a part of its header written by hand."""
    parts = {"dtype": b'"F32"', "shape": b"[2]", "data_offsets": b"[0,8]", key: value}
    inside = b",".join(b'"%s":%s' % (k.encode(), v) for k, v in parts.items())
    return assemble(b'{"w":{%s}}' % inside)


def two(first, second, data=NUMBERS):
    """A file of two tensors of bytes with these offsets."""
    tensors = {name: entry("U8", (b - a,), (a, b)) for name, (a, b) in {"a": first, "b": second}.items()}
    return assemble(tensors, data)


def metadata(value):
    return assemble({"__metadata__": value}, b"")


GOOD = assemble({"__metadata__": {"made": "here"}, "w": entry()})
MANY = {str(i): entry(shape=(0,), offsets=(0, 0)) for i in range(LIMITS.tensors + 1)}

HOSTILE_FILES: dict[str, tuple[Callable[[], bytes], Code]] = {
    # length and encoding
    "empty": (lambda: b"", Code.TRUNCATED),
    "shorter than its length field": (lambda: b"\x08\0\0", Code.TRUNCATED),
    "a header of no bytes": (lambda: assemble(b""), Code.BAD_HEADER),
    "a header longer than the file": (lambda: assemble(b"{}", length=1000), Code.TRUNCATED),
    "a header of 32 GiB": (lambda: assemble(b"{}", length=2**35), Code.TOO_LARGE),
    "a header of 2^64 - 1 bytes": (lambda: assemble(b"{}", length=2**64 - 1), Code.TOO_LARGE),
    "a header whose sum with 8 overflows": (lambda: assemble(b"{}", length=2**64 - 8), Code.TOO_LARGE),
    "a header over its cap that is there": (lambda: assemble(b"{}" + b" " * LIMITS.header_bytes), Code.TOO_LARGE),
    "a pickle": (lambda: b"\x80\x04\x95\x10\0\0\0\0\0\0\0cos\nsystem\n.", Code.TOO_LARGE),
    "a zip": (lambda: b"PK\x03\x04" + b"\0" * 40, Code.TOO_LARGE),
    "not UTF-8": (lambda: assemble(b'{"\xff":1}'), Code.BAD_JSON),
    "an overlong encoding": (lambda: assemble(b'{"\xc0\xae":1}'), Code.BAD_JSON),
    "a surrogate in UTF-8": (lambda: assemble(b'{"\xed\xa0\x80":1}'), Code.BAD_JSON),
    "UTF-16": (lambda: assemble('{"w":1}'.encode("utf-16-le")), Code.BAD_JSON),
    "a byte-order mark": (lambda: assemble(b"\xef\xbb\xbf{}"), Code.BAD_HEADER),
    # JSON
    "space before the header": (lambda: assemble(b" {}", b""), Code.BAD_HEADER),
    "a list for a header": (lambda: assemble(b"[]"), Code.BAD_HEADER),
    "JSON that ends early": (lambda: assemble(b'{"w":'), Code.BAD_JSON),
    "two objects": (lambda: assemble(b"{}{}"), Code.BAD_JSON),
    "zeros after the header": (lambda: assemble(b"{}\0\0", b""), Code.BAD_JSON),
    "a trailing comma": (lambda: assemble(b'{"w":1,}'), Code.BAD_JSON),
    "a raw line break in a name": (lambda: assemble(b'{"a\nb":1}'), Code.BAD_JSON),
    "NaN": (lambda: text_of(b"[NaN]"), Code.BAD_JSON),
    "Infinity": (lambda: text_of(b"[Infinity]"), Code.BAD_JSON),
    "a float that becomes infinite": (lambda: text_of(b"[1e999]"), Code.BAD_JSON),
    "an integer of 10,000 digits": (lambda: text_of(b"[%s]" % (b"9" * 10_000)), Code.BAD_JSON),
    "a million open brackets": (lambda: assemble(b'{"w":' + b"[" * 1_000_000), Code.TOO_DEEP),
    "brackets nested and closed": (lambda: assemble(b'{"w":' + b"[" * 50 + b"]" * 50 + b"}"), Code.TOO_DEEP),
    "objects nested in one another": (lambda: assemble(b'{"w":' * 100_000), Code.TOO_DEEP),
    "a string of escaped quotes without end": (lambda: assemble(b'{"' + b'\\"' * 500_000), Code.BAD_JSON),
    "a string that ends in a backslash": (lambda: assemble(b'{"w' + b"\\"), Code.BAD_JSON),
    "a list of a hundred thousand sizes": (lambda: text_of(b"[%s1]" % (b"1," * 100_000)), Code.TOO_LARGE),
    # names
    "one tensor twice": (
        lambda: assemble(b'{"w":%s,"w":%s}' % ((json.dumps(entry()).encode(),) * 2)),
        Code.DUPLICATE_NAME,
    ),
    "a name twice, once escaped": (lambda: assemble(b'{"w":0,"\\u0077":0}'), Code.DUPLICATE_NAME),
    "metadata twice": (lambda: assemble(b'{"__metadata__":{},"__metadata__":{}}', b""), Code.DUPLICATE_NAME),
    "a field twice": (lambda: assemble(b'{"w":{"shape":[2],"shape":[2]}}'), Code.DUPLICATE_NAME),
    "no name": (lambda: named(""), Code.BAD_NAME),
    "a name of 129 characters": (lambda: named("a" * 129), Code.BAD_NAME),
    "a way up": (lambda: named("../../etc/passwd"), Code.BAD_NAME),
    "an absolute path": (lambda: named("/etc/passwd"), Code.BAD_NAME),
    "a path of Windows": (lambda: named("C:\\w"), Code.BAD_NAME),
    "two dots": (lambda: named("a..b"), Code.BAD_NAME),
    "a leading dot": (lambda: named(".hidden"), Code.BAD_NAME),
    "a leading dash": (lambda: named("-rf"), Code.BAD_NAME),
    "a line break at the end": (lambda: named("w\n"), Code.BAD_NAME),
    "NUL": (lambda: named("w\0"), Code.BAD_NAME),
    "an escape of the terminal": (lambda: named("\x1b[2J"), Code.BAD_NAME),
    "text from right to left": (lambda: named("a\u202eb"), Code.BAD_NAME),
    "an invisible character": (lambda: named("a\u200bb"), Code.BAD_NAME),
    "a letter that looks like another": (lambda: named("\u0430"), Code.BAD_NAME),
    "not normalized": (lambda: named("e\u0301"), Code.BAD_NAME),
    "a digit of another script": (lambda: named("\u0660"), Code.BAD_NAME),
    "half a surrogate pair": (lambda: assemble(b'{"\\ud800":0}'), Code.BAD_NAME),
    "a page's markup": (lambda: named("<script>alert(1)</script>"), Code.BAD_NAME),
    "a spreadsheet's formula": (lambda: named("=1+1"), Code.BAD_NAME),
    # entries
    "a number for a tensor": (lambda: assemble({"w": 1}), Code.BAD_HEADER),
    "no shape": (lambda: assemble({"w": {"dtype": "F32", "data_offsets": [0, 8]}}), Code.BAD_HEADER),
    "one field too many": (lambda: assemble({"w": entry() | {"pickle": "x"}}), Code.BAD_HEADER),
    "a type that is not known": (lambda: one("F128"), Code.BAD_DTYPE),
    "objects of Python": (lambda: one("O"), Code.BAD_DTYPE),
    "a list for a type": (lambda: text_of(b"[]", "dtype"), Code.BAD_DTYPE),
    "a negative size": (lambda: one(shape=(-2,)), Code.BAD_SHAPE),
    "two negative sizes": (lambda: one(shape=(-1, -2)), Code.BAD_SHAPE),
    "a fraction for a size": (lambda: one(shape=(2.0,)), Code.BAD_SHAPE),
    "true for a size": (lambda: one(shape=(True, 2)), Code.BAD_SHAPE),
    "a text for a shape": (lambda: text_of(b'"2"'), Code.BAD_SHAPE),
    "a shape of terabytes": (lambda: one(shape=(2**20, 2**20)), Code.TOO_LARGE),
    "a shape that overflows 64 bits to its bytes": (lambda: one(shape=(2**62 + 2,)), Code.TOO_LARGE),
    "small sizes whose product overflows": (lambda: one(shape=(2**16,) * 4 + (2,)), Code.TOO_LARGE),
    "a zero that hides terabytes": (lambda: one(shape=(0, 2**23, 2**23), offsets=(0, 0), data=b""), Code.TOO_LARGE),
    "nine dimensions": (lambda: one(shape=(1,) * 8 + (2,)), Code.TOO_LARGE),
    "a shape of more bytes than the offsets": (lambda: one(shape=(3,)), Code.BAD_SHAPE),
    "a shape of fewer bytes than the offsets": (lambda: one(shape=()), Code.BAD_SHAPE),
    "over 1,024 tensors": (lambda: assemble(MANY, b""), Code.TOO_LARGE),
    # offsets
    "offsets backwards": (lambda: one(offsets=(8, 0)), Code.BAD_HEADER),
    "a negative offset": (lambda: one(offsets=(-8, 0)), Code.BAD_HEADER),
    "one offset": (lambda: one(offsets=(0,)), Code.BAD_HEADER),
    "three offsets": (lambda: one(offsets=(0, 8, 16)), Code.BAD_HEADER),
    "an offset beyond 64 bits": (lambda: one(offsets=(2**64, 2**64 + 8)), Code.OUT_OF_BOUNDS),
    "data beyond the file": (lambda: one(data=NUMBERS[:4]), Code.OUT_OF_BOUNDS),
    "no data": (lambda: one(data=b""), Code.OUT_OF_BOUNDS),
    "the same bytes twice": (lambda: two((0, 8), (0, 8)), Code.OVERLAP),
    "one byte shared": (lambda: two((0, 5), (4, 8)), Code.OVERLAP),
    "one inside the other": (lambda: two((0, 8), (2, 4)), Code.OVERLAP),
    "an empty one inside another": (lambda: two((0, 8), (4, 4)), Code.OVERLAP),
    "a byte before the first": (lambda: two((1, 4), (4, 8)), Code.GAP),
    "a byte between two": (lambda: two((0, 3), (4, 8)), Code.GAP),
    "a byte after the last": (lambda: two((0, 4), (4, 7)), Code.GAP),
    "data of no tensor": (lambda: assemble(b"{}"), Code.GAP),
    # numbers
    "NaN in the data": (lambda: one(data=struct.pack("<2f", 1.0, float("nan"))), Code.NOT_FINITE),
    "infinity in the data": (lambda: one(data=struct.pack("<2f", float("-inf"), 1.0)), Code.NOT_FINITE),
    "a signalling NaN, not aligned": (
        lambda: assemble(
            {"a": entry("U8", (1,), (0, 1)), "b": entry("F32", (1,), (1, 5))}, b"\0" + bytes.fromhex("0100807f")
        ),
        Code.NOT_FINITE,
    ),
    # metadata
    "a number for the metadata": (lambda: metadata(1), Code.BAD_METADATA),
    "null for the metadata": (lambda: metadata(None), Code.BAD_METADATA),
    "an object in the metadata": (lambda: metadata({"tinymlperf": {"nodes": []}}), Code.BAD_METADATA),
    "half a surrogate pair in the metadata": (lambda: metadata({"a": "\ud800"}), Code.BAD_METADATA),
    "17 metadata": (lambda: metadata({str(i): "" for i in range(17)}), Code.TOO_LARGE),
    "a path in the metadata": (lambda: metadata({"../x": ""}), Code.BAD_NAME),
}


def _sparse(path: Path, size: int, header: bytes = b"", end: bytes = b"") -> None:
    """A file of zeros that takes no room on the disk, with a beginning and an end."""
    with path.open("wb") as file:
        file.write(header)
        file.seek(size - len(end))
        file.write(end)
        file.truncate(size)


def _largest_with_nan(path: Path) -> None:
    """As large as may be, all in order but its last number: the most that a refusal can take."""
    n = (LIMITS.file_bytes - 256) // 4
    head = assemble(json.dumps({"w": entry(shape=(n,), offsets=(0, 4 * n))}).encode(), b"")
    _sparse(path, len(head) + 4 * n, head, struct.pack("<f", float("nan")))


def _loop(path: Path) -> None:
    path.symlink_to(path)


# What a path may lead to beside a file in which something is written. Each makes it there.
HOSTILE_PATHS: dict[str, tuple[Callable[[Path], object], Code]] = {
    "nothing": (lambda path: None, Code.NOT_A_FILE),
    "a folder": (Path.mkdir, Code.NOT_A_FILE),
    "a file over the cap": (lambda path: _sparse(path, LIMITS.file_bytes + 1), Code.TOO_LARGE),
    "the largest file, NaN at its end": (_largest_with_nan, Code.NOT_FINITE),
}
if os.name == "posix":
    HOSTILE_PATHS |= {
        "a file of 1 TiB": (lambda path: _sparse(path, 2**40), Code.TOO_LARGE),
        "a pipe that nobody writes to": (os.mkfifo, Code.NOT_A_FILE),
        "a link to itself": (_loop, Code.NOT_A_FILE),
        "a link to nothing": (lambda path: path.symlink_to("nowhere"), Code.NOT_A_FILE),
        "a device without end": (lambda path: path.symlink_to("/dev/zero"), Code.NOT_A_FILE),
    }


# Opens files, in a process of its own, and tells of each the code, the message and the processor's seconds.
_OPEN_ALL = """
import importlib, json, operator, sys, time
from tinytorch.benchmarks.tinymlperf.rejection import Rejected
from tinytorch.profiling.memory.process import high_water

module, name, good, paths = json.loads(sys.stdin.read())
call = operator.attrgetter(name)(importlib.import_module("tinytorch.benchmarks.tinymlperf." + module))
if sys.platform == "linux":  # elsewhere a request for too much fails by itself
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
call(good)  # what is imported only when it is needed
before, found = high_water().nbytes or 0, {}
for path in paths:
    start = time.process_time()
    try:
        call(path)
        code, message = "opened", ""
    except Rejected as refused:
        code, message = refused.code, refused.message
    except Exception as error:  # MemoryError, too
        code, message = type(error).__name__, str(error)
    found[path] = code, message, time.process_time() - start
print(json.dumps([found, before, high_water().nbytes or 0]))
"""


@dataclass(frozen=True)
class Opened:
    """What became of some files: of each its code, its message and its seconds; the process's bytes before and after.

    The bytes are the most that there were until then.
    """

    found: Mapping[str, tuple[str, str, float]]
    before: int
    after: int


def open_all(module: str, name: str, good: Path, paths: Iterable[Path]) -> Opened:
    """Open files one after the other with a function of the package, in a process of its own; a good one first."""
    given = json.dumps([module, name, str(good), [str(path) for path in paths]])
    done = subprocess.run([sys.executable, "-c", _OPEN_ALL], input=given, capture_output=True, text=True, check=True)
    found, before, after = json.loads(done.stdout)
    return Opened({path: tuple(what) for path, what in found.items()}, before, after)
