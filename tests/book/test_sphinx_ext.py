"""A small book, built by the command that readers use, next to the traps of a big one."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CHAPTER = Path("chapters/14_transformers")
STATE = "application/vnd.jupyter.widget-state+json"
VIEW = "application/vnd.jupyter.widget-view+json"
FIGURE = '<figure class="tinytorch-figure"><div role="img" aria-label="A line."><svg></svg></div></figure>'


def notebook():
    def shown(model):
        data = {VIEW: {"model_id": model, "version_major": 2, "version_minor": 0}, "text/plain": "words"}
        output = {"output_type": "display_data", "metadata": {}, "data": data}
        return {"cell_type": "code", "metadata": {}, "source": "show", "outputs": [output], "execution_count": 1}

    models = {
        "a" * 32: {
            "model_module": "@jupyter-widgets/controls",
            "model_name": "HTMLModel",
            "model_module_version": "2.0.0",
            "state": {"value": FIGURE},
        },
        "b" * 32: {
            "model_module": "@jupyter-widgets/controls",
            "model_name": "VBoxModel",
            "model_module_version": "2.0.0",
            "state": {"_dom_classes": ["tinytorch-explorer"], "children": ["IPY_MODEL_" + "c" * 32]},
        },
        "c" * 32: {
            "model_module": "anywidget",
            "model_name": "AnyModel",
            "model_module_version": "~0.9.*",
            "state": {"frames": ["<svg></svg>", "<svg>2</svg>"], "sentences": ["1 < 2.", "2 < 3."]},
        },
    }
    text = {"cell_type": "markdown", "metadata": {}, "source": "# Chapter\n\n$$ n^2 $$"}
    state = {"version_major": 2, "version_minor": 0, "state": models}
    return {
        "nbformat": 4,
        "nbformat_minor": 4,
        "metadata": {"language_info": {"name": "python"}, "widgets": {STATE: state}},
        "cells": [text, shown("a" * 32), shown("b" * 32)],
    }


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The folder of a book that was built with warnings as errors."""
    book = tmp_path_factory.mktemp("book")
    (book / CHAPTER).mkdir(parents=True)
    shutil.copy(ROOT / "_config.yml", book)
    (book / "_toc.yml").write_text(
        "format: jb-book\nroot: index\nchapters:\n- file: chapters/14_transformers/transformers\n"
    )
    (book / "index.md").write_text("# Front\n\n| | |\n| --- | --- |\n| left | right |\n")
    (book / "README.md").write_text("# Not a page\n")
    (book / CHAPTER / "transformers.ipynb").write_text(json.dumps(notebook()))
    (book / CHAPTER / "transformers.md").write_text("# The notebook's source, not a page\n")
    # What the bundler makes is not the question here: a stamp says that it was made.
    made = "from tinytorch.book import assets; print(assets._digest(assets.SOURCES))"
    digest = subprocess.run([sys.executable, "-c", made], capture_output=True, text=True, check=True).stdout.strip()
    (book / "_build" / "assets" / "static").mkdir(parents=True)
    (book / "_build" / "assets" / "built-from").write_text(digest)
    (book / "_build" / "assets" / "static" / "widgets.js").write_text("// made")
    program = Path(sys.executable).with_name("jupyter-book")
    done = subprocess.run(
        [program, "build", "-W", "-n", "--keep-going", "."], cwd=book, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return book


@pytest.fixture(scope="module")
def page(built):
    return (built / "_build/html" / CHAPTER / "transformers.html").read_text("utf-8")


def test_the_executed_notebook_is_the_page_not_its_source(page):
    assert "not a page" not in page
    assert "<h1>Chapter" in page


def test_a_page_loads_nothing_from_another_host(built):
    for path in (built / "_build/html").rglob("*.html"):
        loaded = re.findall(r'<(?:script|link|img|iframe)\b[^>]*?(?:src|href)="(\w+:[^"]+)"', path.read_text("utf-8"))
        assert loaded == [], path
        assert not re.search(r"unpkg|jsdelivr|cdnjs|binder-examples", path.read_text("utf-8")), path


def test_a_page_with_widgets_loads_the_runtime_and_others_do_not(built, page):
    assert re.search(r'src="[./]*_static/widgets\.js', page)
    assert "_static/widgets.js" not in (built / "_build/html/index.html").read_text("utf-8")


def test_mathematics_comes_from_the_book(page):
    assert re.search(r'src="[./]*_static/mathjax/tex-mml-chtml\.js', page)


def test_a_still_figure_is_part_of_the_page(page):
    assert FIGURE in page
    assert f'"model_id": "{"a" * 32}"' not in page


def test_a_moving_figure_keeps_its_view_and_shows_its_first_stop_before_it_moves(page):
    assert f'"model_id": "{"b" * 32}"' in page
    assert '<div class="tinytorch-still"><svg></svg><p>1 &lt; 2.</p></div>' in page


def test_a_table_without_words_in_its_head_has_no_head(built):
    front = (built / "_build/html/index.html").read_text("utf-8")
    assert "right" in front
    assert "<th" not in front
