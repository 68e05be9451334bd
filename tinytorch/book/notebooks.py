"""Build the chapters' notebooks from their Markdown, byte for byte the same each time on one machine.

A chapter is written in ``chapters/<name>/<name>.md``, a MyST text notebook that a person can edit and a diff can show.
``python -m tinytorch.book.notebooks build`` runs it from the first cell to the last and writes the ``.ipynb`` beside
it, with its outputs and the state of its widgets. ``check`` says where a notebook no longer is what its source says.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import jupytext
import nbformat
from jupytext.myst import MystMetadataParsingError
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode
from yaml import YAMLError

from tinytorch.book.includes import IncludeError, expand
from tinytorch.data import files
from tinytorch.kernels.progress import progress_bar

WIDGET_STATE = "application/vnd.jupyter.widget-state+json"
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
CELL_TIMEOUT = 600  # seconds
METADATA = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}

_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_HEADER = re.compile(r"\A---\n(.*?\n)---\n", re.DOTALL)
_MODEL_ID = re.compile(r"(?<![0-9a-f])[0-9a-f]{32}(?![0-9a-f])")


class NotebookError(Exception):
    """A chapter cannot be built; the message names the chapter, the cell and the reason."""


def sources(paths: Iterable[Path] = ()) -> list[Path]:
    """Find the text notebooks among ``paths``: files, or folders to search; ``chapters`` where none is given.

    Raises
    ------
    NotebookError
        If a path does not exist, or a file is not a text notebook.
    """
    found = []
    for path in list(paths) or [Path("chapters")]:
        if path.is_dir():
            found += [md for md in sorted(path.rglob("*.md")) if _is_source(md)]
        elif not path.is_file():
            raise NotebookError(f"{path}: no such file or folder; run this from the root of the repository")
        elif _is_source(path):
            found.append(path)
        else:
            raise NotebookError(f"{path}: not a text notebook: its YAML header names no kernelspec")
    return found


def _is_source(path: Path) -> bool:
    header = _HEADER.match(path.read_text(encoding="utf-8")) if path.suffix == ".md" else None
    return header is not None and "kernelspec:" in header[1]


def read_source(path: Path) -> NotebookNode:
    """Return the notebook, not yet run, that a text notebook describes.

    Raises
    ------
    NotebookError
        If the text is not that of a notebook, or it shows code that is not there.
    """
    try:
        nb = jupytext.read(path, fmt="md:myst")
    except (nbformat.ValidationError, MystMetadataParsingError, YAMLError) as error:
        raise NotebookError(f"{path}: not a text notebook: {error}") from None
    try:
        for cell in nb.cells:
            if cell.cell_type == "markdown":
                cell.source = expand(cell.source, path.parent)
    except IncludeError as error:
        raise NotebookError(f"{path}: {error}") from None
    nb.metadata = nbformat.from_dict(METADATA)
    seen: Counter[str] = Counter()
    for cell in nb.cells:
        # an id made of the content leaves the other cells' ids alone when a cell is added
        digest = hashlib.sha256(f"{cell.cell_type}\n{cell.source}".encode()).hexdigest()[:10]
        seen[digest] += 1
        cell.id = digest if seen[digest] == 1 else f"{digest}-{seen[digest]}"
    nb.nbformat, nb.nbformat_minor = 4, 5
    return nb


def execute(nb: NotebookNode, source: Path) -> NotebookNode:
    """Run every cell in the folder of ``source``, in this interpreter's environment, and store outputs and widgets.

    Raises
    ------
    NotebookError
        If a cell fails, takes longer than ten minutes, or kills the kernel.
    """
    code = [cell for cell in nb.cells if cell.cell_type == "code"]
    with progress_bar(total=len(code), desc=source.stem, unit="cell") as progress:
        client = NotebookClient(
            nb,
            timeout=CELL_TIMEOUT,
            kernel_name="python3",
            store_widget_state=True,
            record_timing=False,
            coalesce_streams=True,
            extra_arguments=["--log-level=ERROR"],
            resources={"metadata": {"path": str(source.parent)}},
            on_cell_execute=lambda **_: progress.update(),
        )
        try:
            client.execute(env=os.environ | {"PYTHONHASHSEED": "0"})
        except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
            reason = _ANSI.sub("", str(error)).strip()
            raise NotebookError(f"{source}: code cell {progress.n} of {len(code)} failed\n{reason}") from None
    return nb


def normalise(nb: NotebookNode) -> NotebookNode:
    """Return ``nb`` without what differs from run to run and from machine to machine: widgets' ids, versions, dates."""
    state = widget_states(nb)
    names = {model: f"{number:032x}" for number, model in enumerate(_in_order_of_reference(nb, state))}
    text = json.dumps(nb)
    nb = nbformat.from_dict(json.loads(_MODEL_ID.sub(lambda m: names.get(m[0], m[0]), text)))
    nb.metadata |= METADATA
    return nb


def widget_states(nb: NotebookNode) -> dict[str, Any]:
    """Return the saved widgets: model id -> its name, module and state."""
    return nb.metadata.get("widgets", {}).get(WIDGET_STATE, {}).get("state", {})


def references(value: object) -> list[str]:
    """Return what may be model ids in a JSON value, in the order in which they stand there."""
    return _MODEL_ID.findall(json.dumps(value, sort_keys=True))


def _in_order_of_reference(nb: NotebookNode, state: dict[str, Any]) -> Iterator[str]:
    seen: set[str] = set()

    def visit(model: str) -> Iterator[str]:
        if model in state and model not in seen:
            seen.add(model)
            yield model
            for other in references(state[model]["state"]):
                yield from visit(other)

    views = [out.data[WIDGET_VIEW] for out in outputs(nb) if WIDGET_VIEW in out.get("data", {})]
    for view in views:
        yield from visit(view["model_id"])
    for model in state:  # links: no view shows them, and they stand in the order of their creation
        yield from visit(model)


def outputs(nb: NotebookNode) -> Iterator[NotebookNode]:
    """Yield the outputs of all code cells."""
    for cell in nb.cells:
        yield from cell.get("outputs", [])


def write(nb: NotebookNode, path: Path) -> None:
    """Write ``nb`` at once: a reader of ``path`` sees the old notebook or the new one, never half of one."""
    nbformat.validate(nb)
    files.write(path, (nbformat.writes(nb).rstrip("\n") + "\n").encode())


def build(source: Path) -> Path:
    """Run one text notebook and write the notebook beside it; a failing cell leaves the old notebook as it was."""
    target = source.with_suffix(".ipynb")
    write(normalise(execute(read_source(source), source)), target)
    return target


def differences(source: Path) -> list[str]:
    """Say where the notebook beside ``source`` is no longer what the source says; outputs are nbval's business."""
    target = source.with_suffix(".ipynb")
    expected = read_source(source)
    if not target.is_file():
        return [f"{target}: missing"]
    found = nbformat.read(target, as_version=4)
    result = []
    for number, (ours, theirs) in enumerate(zip(expected.cells, found.cells, strict=False), start=1):
        if changed := [key for key in ("cell_type", "source", "metadata", "id") if ours[key] != theirs.get(key)]:
            result.append(f"{target}: cell {number} differs from {source.name} in its {changed[0]}")
            break  # after an inserted cell every later one differs too
    else:
        if len(expected.cells) != len(found.cells):
            result.append(f"{target}: {len(found.cells)} cells where {source.name} has {len(expected.cells)}")
    if expected.metadata != {key: value for key, value in found.metadata.items() if key != "widgets"}:
        result.append(f"{target}: its metadata is not what a build writes")
    return result


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tinytorch.book.notebooks", description=__doc__)
    parser.add_argument("command", choices=["build", "check"])
    parser.add_argument("paths", nargs="*", type=Path, help="text notebooks or folders of them (chapters)")
    options = parser.parse_args(arguments)
    try:
        found = sources(options.paths)
        if options.command == "build":
            for source in found:
                print(build(source))
            return 0
        stale = [line for source in found for line in differences(source)]
    except NotebookError as error:
        print(error, file=sys.stderr)
        return 1
    if stale:
        print(*stale, "Run 'make notebooks' and commit what it writes.", sep="\n", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
