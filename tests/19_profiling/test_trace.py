"""Traces that a viewer can open: their form, and that inner events stay inside."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinytorch import Tensor, nn
from tinytorch.profiling.event import Event
from tinytorch.profiling.files import write_text
from tinytorch.profiling.profiler.context import ProfilerContext
from tinytorch.profiling.profiler.trace import chrome_trace


def in_nanoseconds(microseconds: float) -> int:
    """What Perfetto's reader makes of a number of microseconds."""
    return int(microseconds * 1000.0)


def check(trace) -> None:
    """Assert the form of complete and metadata events, their order, and strict nesting on each track."""
    assert set(trace) == {"traceEvents", "displayTimeUnit", "otherData"}
    assert trace["displayTimeUnit"] in ("ms", "ns")
    tracks, named, last = {}, set(), -1
    for event in trace["traceEvents"]:
        assert isinstance(event["name"], str)
        assert isinstance(event["pid"], int)
        assert isinstance(event["tid"], int)
        assert isinstance(event["args"], dict)
        assert event["ph"] in ("M", "X")
        if event["ph"] == "M":
            assert event["name"] in ("process_name", "thread_name")
            assert isinstance(event["args"]["name"], str)
            named.add((event["name"], event["pid"], event["tid"]))
            continue
        assert isinstance(event["cat"], str)
        assert isinstance(event["ts"], int | float)
        assert isinstance(event["dur"], int | float)
        start, duration = in_nanoseconds(event["ts"]), in_nanoseconds(event["dur"])
        assert start >= max(last, 0)
        assert duration >= 0
        last = start
        around = tracks.setdefault((event["pid"], event["tid"]), [])
        while around and around[-1] <= start and not (around[-1] == start and duration == 0):
            around.pop()
        assert not around or start + duration <= around[-1]
        around.append(start + duration)
    for pid, tid in tracks:
        assert {("process_name", pid, tid), ("thread_name", pid, tid)} <= named


def profile() -> ProfilerContext:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(2, 2))
    with ProfilerContext(model) as prof:
        model(Tensor(np.ones((1, 1, 4, 4), np.float32))).sum().backward()
    return prof


def test_a_file_has_the_form_of_chromes_trace_events(tmp_path):
    prof = profile()
    prof.export_chrome_trace(tmp_path / "trace.json")
    trace = json.loads((tmp_path / "trace.json").read_text(encoding="utf-8"))
    check(trace)
    complete = [event for event in trace["traceEvents"] if event["ph"] == "X"]
    assert [(e["name"], e["cat"]) for e in complete] == [(e.name, e.kind) for e in prof.events]
    assert [e["args"]["name"] for e in trace["traceEvents"] if e["ph"] == "M"] == ["TinyTorch", "MainThread"]
    assert complete[2]["args"] == {
        "path": "0",
        "inputs": ["float32[1, 1, 4, 4]", "float32[2, 1, 3, 3]", "float32[2]", "1", "0"],
        "output": "float32[1, 2, 2, 2]",
    }


def test_the_check_finds_what_is_wrong():
    outer = Event("range", "outer", "", 0, 1000)
    check(chrome_trace([outer, Event("range", "inner", "", 500, 500, parent=0)]))
    for wrong in (Event("range", "sticks out", "", 500, 501, parent=0), Event("range", "too early", "", -1, 5)):
        with pytest.raises(AssertionError):
            check(chrome_trace([outer, wrong]))


@given(
    start=st.integers(0, 10**13),
    before=st.integers(0, 10**6),
    inner=st.integers(0, 10**9),
    after=st.integers(0, 3),
)
def test_nesting_and_nanoseconds_survive_the_viewers_microseconds(start, before, inner, after):
    events = [
        Event("range", "outer", "", start, before + inner + after),
        Event("range", "inner", "", start + before, inner, parent=0),
    ]
    trace = json.loads(json.dumps(chrome_trace(events)))
    check(trace)
    complete = [event for event in trace["traceEvents"] if event["ph"] == "X"]
    assert [(in_nanoseconds(e["ts"]), in_nanoseconds(e["dur"])) for e in complete] == [
        (e.start, e.duration) for e in events
    ]


def test_a_failed_call_is_marked_and_an_empty_trace_has_its_form():
    check(chrome_trace([]))
    (event,) = chrome_trace([Event("forward", "Linear", "0", 0, 5, failed=True)])["traceEvents"][2:]
    assert event["args"] == {"path": "0", "failed": True}


def test_a_file_is_replaced_as_a_whole_and_a_missing_folder_is_named(tmp_path):
    prof, path = profile(), tmp_path / "trace.json"
    path.write_text("old")
    prof.export_chrome_trace(path)
    assert json.loads(path.read_text(encoding="utf-8"))["otherData"] == {"notes": [], "dropped": 0}
    with pytest.raises(FileNotFoundError, match=r"no folder .*nowhere to write trace\.json into"):
        prof.export_chrome_trace(tmp_path / "nowhere" / "trace.json")
    with pytest.raises(IsADirectoryError, match="name a file in it"):
        prof.export_chrome_trace(tmp_path)
    with pytest.raises(UnicodeEncodeError):
        write_text("half a letter: \ud800", path)
    assert json.loads(path.read_text(encoding="utf-8"))["traceEvents"]
    assert [p.name for p in tmp_path.iterdir()] == ["trace.json"]
