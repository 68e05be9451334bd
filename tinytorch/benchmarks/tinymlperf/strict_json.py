"""JSON from strangers: no key twice, no NaN, no numbers without end, no nesting that exhausts the stack."""

from __future__ import annotations

import json
import math
import re
from typing import Any

from tinytorch.benchmarks.tinymlperf.limits import Limits
from tinytorch.benchmarks.tinymlperf.rejection import Code, Rejected, quoted

# The closing quote may be missing: then all that follows is one string, and the search for its end is not repeated.
_STRING = re.compile(r'"(?:[^"\\]|\\.)*+"?', re.DOTALL)
_NO_BRACKET = re.compile(r"[^][{}]+")


def parse_json(text: str | bytes, limits: Limits, what: str) -> dict[str, Any]:
    """Return the JSON object that a text holds.

    Parameters
    ----------
    text
        The text, or its bytes in UTF-8.
    limits
        Of these, the depth and the length of numbers. The length of the text is the caller's to check.
    what
        The text's name in error messages: "the header".

    Raises
    ------
    Rejected
        If it is not strict JSON (RFC 8259), not an object, names a key twice or exceeds a limit.
    """
    try:
        if isinstance(text, bytes):
            text = text.decode("utf-8")
        _check_depth(text, limits, what)
        value = json.loads(
            text,
            object_pairs_hook=_once,
            parse_int=lambda digits: int(_short(digits, limits)),
            parse_float=lambda digits: _finite(_short(digits, limits)),
            parse_constant=_refuse,
        )
    except Rejected:
        raise
    except UnicodeDecodeError as error:
        raise Rejected(Code.BAD_JSON, f"{what} is not UTF-8 at byte {error.start:,}") from None
    except ValueError as error:
        raise Rejected(Code.BAD_JSON, f"{what} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise Rejected(Code.BAD_JSON, f"{what} is no JSON object")
    return value


def _check_depth(text: str, limits: Limits, what: str) -> None:
    depth = 0
    for bracket in _NO_BRACKET.sub("", _STRING.sub("", text)):
        depth += 1 if bracket in "[{" else -1
        if depth > limits.json_depth:
            raise Rejected(Code.TOO_DEEP, f"{what} nests deeper than {limits.json_depth} lists and objects")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise Rejected(Code.DUPLICATE_NAME, f"{quoted(key)} is given twice")
        found[key] = value
    return found


def _short(digits: str, limits: Limits) -> str:
    if len(digits) > limits.json_digits:
        raise ValueError(f"the number {quoted(digits)} has over {limits.json_digits} characters")
    return digits


def _finite(digits: str) -> float:
    if math.isinf(value := float(digits)):
        raise ValueError(f"the number {digits} is too large")
    return value


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is no number of JSON")
