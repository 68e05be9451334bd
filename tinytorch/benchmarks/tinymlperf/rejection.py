"""Why a submission is refused: a code that stays the same, and a sentence that says what, where and what to do."""

from __future__ import annotations

from enum import StrEnum

_SHOWN = 60  # characters of a text that comes from a submission


class Code(StrEnum):
    """The reasons for which submissions are refused. Programs compare the code; `meaning` is for people."""

    meaning: str

    def __new__(cls, value: str, meaning: str = "") -> Code:
        code = str.__new__(cls, value)
        code._value_, code.meaning = value, meaning
        return code

    # The file
    NOT_A_FILE = "not-a-file", "there is no regular file that can be read"
    TOO_LARGE = "too-large", "something is larger, or there is more of it, than the limits allow"
    TRUNCATED = "truncated", "the file ends before what it declares"
    BAD_HEADER = "bad-header", "the header is not what the safetensors format asks for"
    BAD_JSON = "bad-json", "a text is not strict JSON in UTF-8"
    TOO_DEEP = "too-deep", "a JSON text nests deeper than the limits allow"
    BAD_METADATA = "bad-metadata", "the metadata are not texts, or one of them is missing"
    BAD_NAME = "bad-name", "a name has other characters than names may have"
    DUPLICATE_NAME = "duplicate-name", "one name is given twice"
    BAD_DTYPE = "bad-dtype", "a tensor has a type that is not known, or not the one that is needed"
    BAD_SHAPE = "bad-shape", "a shape is impossible, or does not fit what it is used with"
    OUT_OF_BOUNDS = "out-of-bounds", "a tensor lies outside the file's data"
    OVERLAP = "overlap", "two tensors share bytes of the file"
    GAP = "gap", "bytes of the file belong to no tensor"
    NOT_FINITE = "not-finite", "a number is NaN or infinite"

    # The graph
    BAD_GRAPH = "bad-graph", "the graph lacks a part, has one too many, or one of the wrong kind"
    BAD_FORMAT = "bad-format", "the graph is written in a format that this version does not read"
    UNKNOWN_OPERATION = "unknown-operation", "a node names an operation that is not in the list"
    BAD_ATTRIBUTE = "bad-attribute", "an attribute is missing, unknown, of the wrong type or out of range"
    UNDEFINED = "undefined", "a value is used that nothing produces"
    CYCLE = "cycle", "a node uses its own output or that of a later node"
    UNUSED = "unused", "a tensor or a value is in the file and nothing uses it"
    BAD_INDEX = "bad-index", "an index points outside of what it points into, or is not in order"
    BAD_VALUE = "bad-value", "a tensor holds a number that its operation cannot work with, such as a scale of zero"

    # The competition
    WRONG_TASK = "wrong-task", "the task is unknown, or its inputs and outputs are others"
    WRONG_DIVISION = "wrong-division", "the division is unknown, or its rules forbid this submission"

    # The run
    TIMEOUT = "timeout", "the run took longer than the limits allow"
    OUT_OF_MEMORY = "out-of-memory", "the run took more memory than the limits allow"
    CRASHED = "crashed", "the process that ran the submission failed or ended"
    WRONG_OUTPUT = "wrong-output", "the outputs have another number, shape or type than the task's, or are not finite"


class Rejected(ValueError):
    """A submission is refused. Nothing but the submission is to blame for it.

    Parameters
    ----------
    code
        The reason, for programs.
    message
        What was wrong, where, and what to do: one sentence, without paths of the machine that checks.
    """

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(code, message)  # both, so that it can be pickled
        self.code = Code(code)
        self.message = message

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


def quoted(text: str) -> str:
    """Return a text that comes from a submission so that it can be shown: in ASCII, in quotes, not too long."""
    return ascii(text if len(text) <= _SHOWN else text[:_SHOWN] + "...")
