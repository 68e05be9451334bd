import json
from pathlib import Path

import nbformat
import pytest

from tinytorch.book import notebooks

CHAPTERS = Path(__file__).parents[2] / "chapters"
HEADER = "---\nkernelspec:\n  display_name: Python 3\n  name: python3\n---\n"
SOURCE = (
    HEADER
    + """\
# A chapter

```{code-cell} python
import time
from pathlib import Path

import ipywidgets

print(Path.cwd().name, 6 * 7)
```

```{code-cell} python
slider = ipywidgets.IntSlider(description="bits")
label = ipywidgets.Label()
link = ipywidgets.jslink((slider, "value"), (label, "value"))
ipywidgets.VBox([slider, label])
```

```{code-cell} python
:tags: [nbval-ignore-output]

print(time.perf_counter_ns())
```
"""
)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "01_first"
    folder.mkdir()
    (folder / "README.md").write_text("# The landing page\n")
    path = folder / "first.md"
    path.write_text(SOURCE)
    return path


def test_every_committed_notebook_is_what_its_source_says():
    found = notebooks.sources([CHAPTERS])
    assert found
    assert [line for source in found for line in notebooks.differences(source)] == []


def test_every_committed_notebook_has_a_source():
    built = {source.with_suffix(".ipynb") for source in notebooks.sources([CHAPTERS])}
    assert {path for path in CHAPTERS.glob("*/*.ipynb")} == built


def test_a_second_build_changes_nothing_but_the_timing_cells(source):
    path = notebooks.build(source)
    first = path.read_text()
    notebooks.build(source)
    old, new = json.loads(first), json.loads(path.read_text())
    assert old["cells"][-1].pop("outputs") != new["cells"][-1].pop("outputs")
    assert old == new
    assert [cell["outputs"][0].get("text") for cell in new["cells"][1:2]] == [["01_first 42\n"]]
    assert "widgets" in new["metadata"]


def test_landing_pages_are_not_run(source):
    assert notebooks.sources([source.parent]) == [source]
    with pytest.raises(notebooks.NotebookError, match=r"README\.md: not a text notebook"):
        notebooks.sources([source.with_name("README.md")])


def test_a_path_that_is_not_there_is_named():
    with pytest.raises(notebooks.NotebookError, match="nowhere: no such file or folder"):
        notebooks.sources([Path("nowhere")])


@pytest.mark.parametrize("text", ["---\nkernelspec: {name: x}\n---\n", HEADER + "```{code-cell}\n:tags: [\n\n1\n```\n"])
def test_a_source_that_is_no_notebook_is_named(source, capsys, text):
    source.write_text(text)
    assert notebooks.main(["check", str(source)]) == 1
    assert f"{source}: not a text notebook" in capsys.readouterr().err


def test_a_failing_cell_is_named_and_leaves_the_old_notebook(source, capsys):
    target = source.with_suffix(".ipynb")
    target.write_text("the old one")
    source.write_text(HEADER + "```{code-cell} python\nprint(1)\n```\n\n```{code-cell} python\nsqrt = 1 / 0\n```\n")
    assert notebooks.main(["build", str(source)]) == 1
    said = capsys.readouterr().err
    assert f"{source}: code cell 2 of 2 failed" in said
    assert "sqrt = 1 / 0" in said
    assert "ZeroDivisionError: division by zero" in said
    assert "\x1b" not in said.partition("failed")[2]
    assert target.read_text() == "the old one"
    assert sorted(path.name for path in source.parent.iterdir()) == ["README.md", "first.ipynb", "first.md"]


def test_a_cell_that_kills_the_kernel_is_named(source, capsys):
    source.write_text(HEADER + "```{code-cell} python\nimport os\n\nos._exit(1)\n```\n")
    assert notebooks.main(["build", str(source)]) == 1
    assert f"{source}: code cell 1 of 1 failed\nKernel died" in capsys.readouterr().err


def test_a_notebook_that_cannot_be_written_leaves_the_old_one(source):
    target = source.with_suffix(".ipynb")
    target.write_text("the old one")
    broken = notebooks.read_source(source)
    broken.cells[0].cell_type = "poem"
    with pytest.raises(nbformat.ValidationError):
        notebooks.write(broken, target)
    assert target.read_text() == "the old one"


def write_unrun(source: Path) -> None:
    notebooks.write(notebooks.read_source(source), source.with_suffix(".ipynb"))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("6 * 7", "6 * 8", "cell 2 differs from first.md in its source"),
        ("# A chapter", "# Another", "cell 1 differs from first.md in its source"),
        (":tags: [nbval-ignore-output]", ":tags: [hide-input]", "cell 4 differs from first.md in its metadata"),
        ("# A chapter", "# A chapter\n+++\nMore.", "cell 2 differs"),
    ],
)
def test_check_fails_where_the_source_has_changed(source, capsys, old, new, said):
    write_unrun(source)
    assert notebooks.main(["check", str(source)]) == 0
    source.write_text(source.read_text().replace(old, new))
    assert notebooks.main(["check", str(source)]) == 1
    assert said in capsys.readouterr().err


def test_check_fails_where_the_notebook_is_missing(source, capsys):
    assert notebooks.main(["check", str(source)]) == 1
    assert "first.ipynb: missing" in capsys.readouterr().err


def test_check_fails_where_the_notebook_lacks_the_last_cell(source):
    write_unrun(source)
    target = source.with_suffix(".ipynb")
    nb = nbformat.read(target, as_version=4)
    del nb.cells[-1]
    notebooks.write(nb, target)
    assert notebooks.differences(source) == [f"{target}: 3 cells where first.md has 4"]


def test_check_fails_where_an_editor_has_written_the_notebook(source):
    write_unrun(source)
    target = source.with_suffix(".ipynb")
    nb = nbformat.read(target, as_version=4)
    nb.metadata.language_info.version = "3.99"
    notebooks.write(nb, target)
    assert notebooks.differences(source) == [f"{target}: its metadata is not what a build writes"]


def test_a_new_cell_leaves_the_other_cells_ids_alone(source):
    before = [cell.id for cell in notebooks.read_source(source).cells]
    source.write_text(source.read_text().replace("# A chapter", "# A chapter\n+++\nMore."))
    after = [cell.id for cell in notebooks.read_source(source).cells]
    assert [before[0], *before[1:]] == [after[0], *after[2:]]


def test_equal_cells_have_different_ids(source):
    source.write_text(HEADER + "```{code-cell} python\nprint(1)\n```\n\n```{code-cell} python\nprint(1)\n```\n")
    ids = [cell.id for cell in notebooks.read_source(source).cells]
    assert len(set(ids)) == 2
