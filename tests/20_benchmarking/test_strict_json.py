"""Strict JSON is what `json` reads, if it is an object, names no key twice and is not too deep; else it is rejected."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinytorch.benchmarks.tinymlperf.limits import Limits
from tinytorch.benchmarks.tinymlperf.rejection import Code, Rejected
from tinytorch.benchmarks.tinymlperf.strict_json import parse_json

LIMITS = Limits(json_depth=5)
leaves = st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.text() | st.floats(-1e300, 1e300)
values = st.recursive(
    leaves, lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(), v, max_size=3), max_leaves=20
)


def depth(value):
    inside = value.values() if isinstance(value, dict) else value
    return 1 + max(map(depth, inside), default=0) if isinstance(value, dict | list) else 0


@given(st.dictionaries(st.text(), values, max_size=4), st.sampled_from([None, 1]), st.booleans())
def test_what_json_writes_is_read_unless_it_is_too_deep(value, indent, escaped):
    text = json.dumps(value, indent=indent, ensure_ascii=escaped)
    if depth(value) <= LIMITS.json_depth:
        assert parse_json(text, LIMITS, "it") == value
    else:
        with pytest.raises(Rejected) as refused:
            parse_json(text, LIMITS, "it")
        assert refused.value.code == Code.TOO_DEEP


@given(st.text('{}[]":,\\\\ \\n0123456789.eE+-truefalsnuNaIity', max_size=40))
def test_what_is_read_is_what_json_reads(text):
    try:
        found = parse_json(text, LIMITS, "it")
    except Rejected:
        return
    assert found == json.loads(text)


@pytest.mark.parametrize("brackets", ["[[[[[[[[", "]]]]", '\\"[[[[[[[[[', "{}{}{}"])
def test_brackets_in_a_text_nest_nothing(brackets):
    text = json.dumps({"a": brackets, brackets: [brackets]})
    assert parse_json(text, LIMITS, "it") == json.loads(text)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", Code.BAD_JSON),
        ("[]", Code.BAD_JSON),
        ("1", Code.BAD_JSON),
        ("{'a': 1}", Code.BAD_JSON),
        ('{"a": NaN}', Code.BAD_JSON),
        ('{"a": -Infinity}', Code.BAD_JSON),
        ('{"a": 1e400}', Code.BAD_JSON),
        ('{"a": 0.' + "1" * 40 + "}", Code.BAD_JSON),
        ('{"a": ' + "1" * 5000 + "}", Code.BAD_JSON),
        ('{"a": 01}', Code.BAD_JSON),
        ('{"a": {"b": 1, "b": 1}}', Code.DUPLICATE_NAME),
        ('{"a": [[[[[]]]]]}', Code.TOO_DEEP),
        (b'{"a": "\xff"}', Code.BAD_JSON),
    ],
)
def test_what_is_not_strict_is_rejected(text, code):
    with pytest.raises(Rejected) as refused:
        parse_json(text, LIMITS, "it")
    assert refused.value.code == code
