"""Tampering with a notebook is found, by nbval or by the gate."""

import copy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode

from tinytorch.book import gate, notebooks

CHAPTERS = Path(__file__).parents[2] / "chapters"
SOURCE = """\
---
kernelspec:
  display_name: Python 3
  name: python3
---
# Levels

```{code-cell} python
from tinytorch.book import explore, show, subplots

print(2**8, "levels")
```

```{code-cell} python
def draw(bits):
    figure, axes = subplots()
    axes.plot([0, bits])
    return figure, f"{bits} bits give {2**bits} levels"


explorer = explore(draw, bits=[2, 4, 8])
explorer
```

```{code-cell} python
print(explorer.table())
```

```{code-cell} python
figure, _ = draw(3)
show(figure, alt="A line.", caption="Levels grow.")
print(2**3)
```
"""
NUMBER, EXPLORER, TABLE, FIGURE = 1, 2, 3, 4  # the cells by their place in the notebook


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> NotebookNode:
    source = tmp_path_factory.mktemp("chapter") / "levels.md"
    source.write_text(SOURCE)
    return nbformat.read(notebooks.build(source), as_version=4)


@pytest.fixture
def nb(built: NotebookNode) -> NotebookNode:
    return copy.deepcopy(built)


@pytest.fixture
def nbval(tmp_path: Path) -> Callable[[NotebookNode], str]:
    """Run the reader's command on a notebook and return what it says."""

    def run(nb: NotebookNode) -> str:
        path = tmp_path / "copy.ipynb"
        nbformat.write(nb, path)
        command = [sys.executable, "-m", "pytest", "--nbval", "-p", "no:cacheprovider", path.name]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        return done.stdout

    return run


def again(cell: NotebookNode, count: int) -> NotebookNode:
    cell = copy.deepcopy(cell)
    cell.execution_count = count
    return cell


def model(nb: NotebookNode, part: str) -> dict:
    """Return the saved state that has ``part``."""
    return next(entry["state"] for entry in notebooks.widget_states(nb).values() if part in entry["state"])


def test_an_honest_notebook_passes_both(nb, nbval):
    assert gate.findings(nb) == []
    assert "4 passed" in nbval(nb)


def test_every_committed_notebook_passes():
    found = sorted(CHAPTERS.glob("*/*.ipynb"))
    assert found
    assert [line for path in found for line in gate.check(path)] == []


def test_in_every_committed_notebook_each_slider_stop_is_guarded():
    explorers = 0
    for path in sorted(CHAPTERS.glob("*/*.ipynb")):
        honest = nbformat.read(path, as_version=4)
        for name, entry in notebooks.widget_states(honest).items():
            for stop in range(len(entry["state"].get("sentences", []))):
                nb = copy.deepcopy(honest)
                notebooks.widget_states(nb)[name]["state"]["sentences"][stop] += " or so"
                explorers += stop == 0
                assert gate.findings(nb), f"{path}: sentence {stop} of {name} can be changed unseen"
    assert explorers


# What nbval finds.


def test_a_changed_number_is_found(nb, nbval):
    nb.cells[NUMBER].outputs[0].text = "255 levels\n"
    said = nbval(nb)
    assert "1 failed, 3 passed" in said
    assert "255 levels" in said


def test_a_changed_stop_in_the_printed_table_is_found_twice(nb, nbval):
    table = nb.cells[TABLE].outputs[0]
    table.text = table.text.replace("16 levels", "17 levels")
    assert "1 failed, 3 passed" in nbval(nb)
    assert gate.findings(nb) == [
        "code cell 2 has a slider stop that no compared table beside it has: bits=4 4 bits give 16 levels"
    ]


def test_removed_outputs_are_found(nb, nbval):
    for cell in (NUMBER, EXPLORER, TABLE, FIGURE):
        nb.cells[cell].outputs = []
    assert "4 failed" in nbval(nb)


# What nbval lets pass.


def test_a_removed_execution_count_is_found(nb):
    nb.cells[NUMBER].execution_count = None
    assert gate.findings(nb) == ["code cell 1 was not executed"]


def test_cells_run_out_of_order_are_found(nb):
    nb.cells[NUMBER].execution_count, nb.cells[TABLE].execution_count = 3, 1
    assert gate.findings(nb) == [
        "code cell 1 was executed as number 3: not from top to bottom",
        "code cell 3 was executed as number 1: not from top to bottom",
    ]


def test_an_error_output_is_found(nb):
    nb.cells[NUMBER].metadata.tags = ["raises-exception"]
    nb.cells[NUMBER].outputs.append(nbformat.v4.new_output("error", ename="ValueError", evalue="no", traceback=[]))
    assert gate.findings(nb) == ["code cell 1 ends in an error: ValueError: no"]


def test_a_warning_is_found(nb):
    nb.cells[NUMBER].outputs.append(nbformat.v4.new_output("stream", name="stderr", text="a.py:1:\nUserWarning: no\n"))
    assert gate.findings(nb) == ["code cell 1 writes to stderr: UserWarning: no"]


def test_a_changed_sentence_of_a_slider_is_found(nb):
    model(nb, "sentences")["sentences"][2] = "8 bits give 999 levels"
    assert gate.findings(nb) == [
        "code cell 2 has a slider stop that no compared table beside it has: bits=8 8 bits give 999 levels"
    ]


def test_a_changed_stop_of_a_slider_is_found(nb):
    model(nb, "_options_labels")["_options_labels"][0] = "1"
    assert gate.findings(nb) == [
        "code cell 2 has a slider stop that no compared table beside it has: bits=1 2 bits give 4 levels"
    ]


def test_a_removed_stop_of_a_slider_is_found(nb):
    del model(nb, "_options_labels")["_options_labels"][0]
    assert gate.findings(nb) == [
        "code cell 2 has a slider stop that no compared table beside it has: 3 sentences for 2 stops"
    ]


def test_a_lost_widget_is_found(nb):
    states = notebooks.widget_states(nb)
    lost = next(name for name, entry in states.items() if "sentences" in entry["state"])
    del states[lost]
    assert f"code cell 2 shows a widget whose state is not saved: {lost}" in gate.findings(nb)


def test_losing_all_widgets_is_found(nb):
    del nb.metadata["widgets"]
    assert len(gate.findings(nb)) == 2


UNCHECKED = "code cell 4 shows a picture with no compared number in it or in the cell below"


def test_a_picture_without_a_number_is_found(nb):
    nb.cells[FIGURE].outputs = [out for out in nb.cells[FIGURE].outputs if out.output_type != "stream"]
    assert gate.findings(nb) == [UNCHECKED]


def test_a_number_that_nbval_ignores_does_not_count(nb):
    nb.cells[FIGURE].metadata.tags = ["nbval-ignore-output"]
    assert gate.findings(nb) == [UNCHECKED]


def test_the_words_that_stand_in_for_a_picture_do_not_count(nb):
    data = {"image/png": "", "text/plain": "<Figure size 640x480 with 1 Axes>"}
    nb.cells[FIGURE].outputs = [nbformat.v4.new_output("display_data", data)]
    assert gate.findings(nb) == [UNCHECKED]


def test_a_picture_inside_html_is_a_picture(nb):
    html = "<p>3</p><img src='data:image/png;base64,'>"
    nb.cells[FIGURE].outputs = [nbformat.v4.new_output("display_data", {"text/html": html})]
    assert gate.findings(nb) == [UNCHECKED]


def test_a_number_in_the_next_section_does_not_count(nb):
    nb.cells[FIGURE].outputs = [out for out in nb.cells[FIGURE].outputs if out.output_type != "stream"]
    number = again(nb.cells[NUMBER], 5)
    nb.cells += [nbformat.v4.new_markdown_cell("So it is."), number]
    assert gate.findings(nb) == []
    nb.cells[-2].source = "## Next"
    assert gate.findings(nb) == [UNCHECKED]


@pytest.mark.parametrize("how", ["tags", "comment", "skip"])
def test_more_than_one_excluded_cell_in_four_is_found(nb, how):
    def exclude(cell):
        if how == "comment":
            cell.source = "# NBVAL_IGNORE_OUTPUT\n" + cell.source
        else:
            cell.metadata.tags = ["nbval-skip" if how == "skip" else "nbval-ignore-output"]

    exclude(nb.cells[NUMBER])
    assert gate.findings(nb) == []
    nb.cells.append(again(nb.cells[NUMBER], 5))
    assert gate.findings(nb) == ["2 of 5 code cells are excluded from comparison; one in four is the limit"]


def test_a_long_cell_is_found(nb):
    nb.cells[NUMBER].source += "\n" * 18 + "print()"
    assert gate.findings(nb) == ["code cell 1 has 21 lines; 20 is the limit"]
