"""The code that a chapter shows is the package's own, and that of today."""

import inspect
from pathlib import Path

import pytest

from tinytorch import nn
from tinytorch.book import notebooks
from tinytorch.book.includes import IncludeError, expand, source_of

ATTENTION = Path(nn.attention.__file__)
DIRECTIVE = "```{{literalinclude}} {}\n:pyobject: {}\n```"


def test_a_class_and_a_function_are_shown_as_python_itself_finds_them():
    assert source_of(ATTENTION, "PastKeyValue") == inspect.getsource(nn.PastKeyValue).rstrip()


def test_a_method_is_shown_with_its_decorators_and_without_its_indentation():
    shown = source_of(ATTENTION, "PastKeyValue.nbytes")
    assert shown.startswith("@property\ndef nbytes(self)")


def test_a_directive_becomes_the_code_and_the_words_around_it_stay(tmp_path):
    (tmp_path / "a.py").write_text("def f():\n    return 1\n\n\ndef g():\n    return 2\n")
    shown = expand("Before.\n\n" + DIRECTIVE.format("a.py", "g") + "\n\nAfter.", tmp_path)
    assert shown == "Before.\n\n`g` in `a.py`:\n\n```python\ndef g():\n    return 2\n```\n\nAfter."


@pytest.mark.parametrize(("file", "name"), [("a.py", "h"), ("a.py", "f.g"), ("b.py", "f"), ("a.py", "x")])
def test_what_is_not_there_is_named(tmp_path, file, name):
    (tmp_path / "a.py").write_text("x = 1\n\n\ndef f():\n    return x\n")
    with pytest.raises(IncludeError, match=f"{file}.*({name}|cannot be shown)"):
        expand(DIRECTIVE.format(file, name), tmp_path)


@pytest.mark.parametrize("source", notebooks.sources(), ids=lambda path: path.stem)
def test_no_directive_is_left_in_a_committed_notebook(source):
    text = source.with_suffix(".ipynb").read_text(encoding="utf-8")
    assert source.read_text(encoding="utf-8").count("{literalinclude}") > 0
    assert "literalinclude" not in text
