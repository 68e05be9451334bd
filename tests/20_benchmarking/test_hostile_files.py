"""A file that is not as it must be is refused with its code, soon, in little memory, and never otherwise."""

import importlib
import pickle
import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinytorch.benchmarks.tinymlperf import file
from tinytorch.benchmarks.tinymlperf.limits import Limits
from tinytorch.benchmarks.tinymlperf.rejection import Code, Rejected, quoted

hostile = importlib.import_module("tests.20_benchmarking.hostile_files")


@pytest.mark.parametrize("name", hostile.HOSTILE_FILES)
def test_a_hostile_file_is_refused_with_its_code(name, tmp_path):
    build, code = hostile.HOSTILE_FILES[name]
    path = tmp_path / "hostile.safetensors"
    path.write_bytes(build())
    with pytest.raises(Rejected) as refused:
        file.read(path)
    assert refused.value.code == code, refused.value
    message = str(refused.value)
    assert message.isascii()
    assert message.isprintable()  # may be shown in a terminal
    assert len(message) < 300
    assert str(tmp_path) not in message  # and to strangers


@pytest.mark.parametrize("name", hostile.HOSTILE_PATHS)
def test_a_path_to_something_else_is_refused_at_once(name, tmp_path):
    make, code = hostile.HOSTILE_PATHS[name]
    make(tmp_path / "hostile")
    with pytest.raises(Rejected) as refused:
        file.read(tmp_path / "hostile")
    assert refused.value.code == code, refused.value
    assert str(tmp_path) not in str(refused.value)


def test_each_is_refused_within_a_second_and_all_within_200_mb(tmp_path):
    """The seconds are the processor's, and the memory includes Python, NumPy and the package."""
    expected = {}
    for i, (build, code) in enumerate(hostile.HOSTILE_FILES.values()):
        expected[str(tmp_path / f"file {i}")] = code
        (tmp_path / f"file {i}").write_bytes(build())
    for i, (make, code) in enumerate(hostile.HOSTILE_PATHS.values()):
        expected[str(tmp_path / f"path {i}")] = code
        make(tmp_path / f"path {i}")
    assert len(expected) > 40

    (tmp_path / "good").write_bytes(hostile.GOOD)
    opened = hostile.open_all("file", "read", tmp_path / "good", expected)
    assert {path: code for path, (code, _, _) in opened.found.items()} == expected
    assert max(seconds for _, _, seconds in opened.found.values()) < 1.0
    assert opened.after < 200e6


def test_the_good_file_that_the_hostile_ones_differ_from_is_read(tmp_path):
    (tmp_path / "good").write_bytes(hostile.GOOD)
    metadata, arrays = file.read(tmp_path / "good")
    assert metadata == {"made": "here"}
    assert arrays["w"].tolist() == [1.0, 2.0]


@settings(max_examples=300)
@given(st.data(), st.integers(0, 2**32 - 1))
def test_a_good_file_with_bytes_changed_is_read_or_rejected(tmp_path_factory, data, seed):
    rng = random.Random(seed)
    raw = bytearray(data.draw(st.sampled_from([hostile.GOOD, hostile.two((0, 3), (3, 8)), hostile.one("I8", (2, 4))])))
    for _ in range(data.draw(st.integers(1, 4))):
        at = rng.randrange(len(raw) + 1)
        change = data.draw(st.sampled_from(["flip", "token", "insert", "cut", "repeat"]))
        if change == "flip" and at < len(raw):
            raw[at] ^= 1 << rng.randrange(8)
        elif change == "token":
            token = rng.choice(
                [b"-1", b"1e400", b"null", b"{", b"[", b"]", b'"', b"\\", b"99999999999999999999", b"\0"]
            )
            raw[at : at + len(token)] = token
        elif change == "insert":
            raw[at:at] = rng.randbytes(rng.randrange(1, 9))
        elif change == "cut":
            del raw[at : at + rng.randrange(1, 9)]
        else:
            raw[at:at] = raw[at : at + rng.randrange(1, 40)]
        if data.draw(st.booleans()):  # the length of the header made to fit again
            raw[:8] = max(0, len(raw) - 16).to_bytes(8, "little")
    path = tmp_path_factory.getbasetemp() / "mutated.safetensors"
    path.write_bytes(raw)
    try:
        _, arrays = file.read(path)
    except Rejected:
        return
    assert sum(a.nbytes for a in arrays.values()) <= len(raw)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_rejected(tmp_path_factory, raw):
    path = tmp_path_factory.getbasetemp() / "any.safetensors"
    path.write_bytes(hostile.assemble(raw) if len(raw) % 2 else raw)
    with pytest.raises(Rejected):
        file.read(path)


def test_a_file_that_is_cut_anywhere_is_refused(tmp_path):
    path = tmp_path / "cut.safetensors"
    for n in range(len(hostile.GOOD)):
        path.write_bytes(hostile.GOOD[:n])
        with pytest.raises(Rejected):
            file.read(path)


def test_smaller_limits_refuse_what_the_usual_ones_take(tmp_path):
    path = tmp_path / "good.safetensors"
    path.write_bytes(hostile.GOOD)
    for limits in (
        Limits(file_bytes=len(hostile.GOOD) - 1),
        Limits(header_bytes=20),
        Limits(dimension=1),
    ):
        with pytest.raises(Rejected) as refused:
            file.read(path, limits)
        assert refused.value.code == Code.TOO_LARGE
    with pytest.raises(ValueError, match="rank is 0: a limit is more than zero"):
        Limits(rank=0)


def test_every_code_is_short_and_has_a_meaning():
    for code in Code:
        assert re.fullmatch("[a-z-]{3,18}", code)
        assert len(code.meaning) > 20
    assert len({code.meaning for code in Code}) == len(Code)


def test_a_rejection_survives_the_way_between_processes():
    refused = pickle.loads(pickle.dumps(Rejected(Code.GAP, "a hole")))
    assert (refused.code, refused.message, str(refused)) == (Code.GAP, "a hole", "gap: a hole")


def test_what_a_submission_says_is_shown_in_ascii_and_not_too_long():
    assert quoted("a\x1b[2J\u202e") == r"'a\x1b[2J\u202e'"
    assert len(quoted("x" * 10**6)) < 80
