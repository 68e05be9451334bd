"""What nbval lets pass: the conditions under which a green ``pytest --nbval chapters`` vouches for a notebook.

nbval 0.11 runs each cell and compares the text it prints. It says nothing of a cell that was never run, compares
neither PNG pictures nor widgets, and takes an author's word for what need not be compared. So here each picture has to
have a compared number beside it, each slider's stops have to be the lines of a compared table, and few cells may be
excluded.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode
from nbval.plugin import find_comment_markers, find_metadata_tags

from tinytorch.book.notebooks import WIDGET_VIEW, references, widget_states

MAX_LINES = 20
MAX_EXCLUDED = 1 / 4  # of the code cells

_DIGIT = re.compile(r"\d")
_HEADING = re.compile(r"^#+ ", re.MULTILINE)
_DRAWN = re.compile(r"<(?:img|svg|canvas|video)\b")


def check(path: Path) -> list[str]:
    """Return what speaks against the notebook at ``path``, one line each, or nothing."""
    return [f"{path}: {finding}" for finding in findings(nbformat.read(path, as_version=4))]


def findings(nb: NotebookNode) -> list[str]:
    """Return what speaks against a notebook.

    - A code cell that was not executed, or execution counts other than 1, 2, 3, ...
    - An error, or anything on stderr.
    - A picture or a widget with no compared number beside it: neither its own cell nor the next code cell of the same
      section (before the next heading) puts out text with a digit that nbval compares. What stands in for a picture or
      a widget (``<Figure size 640x480>``) is no such text.
    - An explorer one of whose stops is not, with its sentence, a line of the compared text beside it.
    - A widget, or a part of one, whose state is not saved.
    - More than one code cell in four excluded from comparison by an nbval tag or comment.
    - A code cell of more than 20 lines.
    """
    rules = (_not_executed, _errors, _unchecked_pictures, _unchecked_stops, _lost_widgets, _excluded, _long)
    return [finding for rule in rules for finding in rule(nb)]


def is_compared(cell: NotebookNode) -> bool:
    """Say whether ``pytest --nbval`` compares what the cell puts out."""
    options = {"check": True} | dict(find_metadata_tags(cell.metadata)) | dict(find_comment_markers(cell.source))
    return bool(options["check"]) and not options.get("skip")


def compared_text(cell: NotebookNode) -> str:
    """Return the text of a cell that nbval compares, less what stands in for a picture or a widget."""
    if not is_compared(cell):
        return ""
    streams = [out.text for out in cell.outputs if out.output_type == "stream"]
    shown = [out.data for out in cell.outputs if "data" in out and not _is_picture(out)]
    return "\n".join([*streams, *(str(text) for data in shown for text in data.values())])


def _code(nb: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in nb.cells if cell.cell_type == "code"]


def _is_picture(out: NotebookNode) -> bool:
    data = out.get("data", {})
    drawn = any(mime.startswith(("image/", "video/")) or mime == WIDGET_VIEW for mime in data)
    return drawn or bool(_DRAWN.search(data.get("text/html", "")))


def _views(cell: NotebookNode) -> list[str]:
    return [out.data[WIDGET_VIEW]["model_id"] for out in cell.outputs if WIDGET_VIEW in out.get("data", {})]


def _text_beside(nb: NotebookNode) -> Iterator[tuple[int, NotebookNode, str]]:
    """Yield each code cell with its number and the compared text of it and of the one below in its section."""
    number = 0
    for position, cell in enumerate(nb.cells):
        if cell.cell_type != "code":
            continue
        number += 1
        text = compared_text(cell)
        for below in nb.cells[position + 1 :]:
            if below.cell_type == "code":
                text += "\n" + compared_text(below)
            if below.cell_type == "code" or _HEADING.search(below.source):
                break
        yield number, cell, text


def _not_executed(nb: NotebookNode) -> Iterator[str]:
    for number, cell in enumerate(_code(nb), start=1):
        if cell.execution_count is None:
            yield f"code cell {number} was not executed"
        elif cell.execution_count != number:
            yield f"code cell {number} was executed as number {cell.execution_count}: not from top to bottom"


def _errors(nb: NotebookNode) -> Iterator[str]:
    for number, cell in enumerate(_code(nb), start=1):
        for out in cell.outputs:
            if out.output_type == "error":
                yield f"code cell {number} ends in an error: {out.ename}: {out.evalue}"
            elif out.get("name") == "stderr":
                yield f"code cell {number} writes to stderr: {out.text.strip().splitlines()[-1]}"


def _unchecked_pictures(nb: NotebookNode) -> Iterator[str]:
    for number, cell, text in _text_beside(nb):
        if any(map(_is_picture, cell.outputs)) and not _DIGIT.search(text):
            yield f"code cell {number} shows a picture with no compared number in it or in the cell below"


def _unchecked_stops(nb: NotebookNode) -> Iterator[str]:
    states = widget_states(nb)
    for number, cell, text in _text_beside(nb):
        printed = {" ".join(line.split()) for line in text.splitlines()}
        for view in _views(cell):
            for line in _explorer_lines(states, view):
                if line not in printed:
                    yield f"code cell {number} has a slider stop that no compared table beside it has: {line}"


def _explorer_lines(states: dict[str, Any], view: str) -> list[str]:
    """Return the table of an `Explorer` as its saved sliders and sentences tell it; nothing for any other widget."""
    explorer = states.get(view, {}).get("state", {})
    if "tinytorch-explorer" not in explorer.get("_dom_classes", ()):
        return []
    parts = [states[child]["state"] for child in references(explorer["children"]) if child in states]
    axes = [
        [f"{part['description'].replace(' ', '_')}={label}" for label in part["_options_labels"]]
        for part in parts
        if "_options_labels" in part
    ]
    sentences = [sentence for part in parts for sentence in part.get("sentences", ())]
    stops = list(product(*axes))
    if len(stops) != len(sentences):
        return [f"{len(sentences)} sentences for {len(stops)} stops"]
    return [" ".join(f"{' '.join(stop)} {sentence}".split()) for stop, sentence in zip(stops, sentences, strict=True)]


def _lost_widgets(nb: NotebookNode) -> Iterator[str]:
    states = widget_states(nb)
    for number, cell in enumerate(_code(nb), start=1):
        waiting, seen = _views(cell), set()
        while waiting:
            model = waiting.pop()
            if model not in states:
                yield f"code cell {number} shows a widget whose state is not saved: {model}"
            elif model not in seen:
                seen.add(model)
                text = str(states[model]["state"])
                waiting += re.findall(r"IPY_MODEL_([0-9a-f]+)", text)


def _excluded(nb: NotebookNode) -> Iterator[str]:
    code = _code(nb)
    excluded = sum(not is_compared(cell) for cell in code)
    if excluded > MAX_EXCLUDED * len(code):
        yield f"{excluded} of {len(code)} code cells are excluded from comparison; one in four is the limit"


def _long(nb: NotebookNode) -> Iterator[str]:
    for number, cell in enumerate(_code(nb), start=1):
        if (lines := len(cell.source.strip().splitlines())) > MAX_LINES:
            yield f"code cell {number} has {lines} lines; {MAX_LINES} is the limit"
