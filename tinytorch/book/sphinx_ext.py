"""The Sphinx side of the book: its own scripts instead of four CDNs, still figures without any, one source per page."""

import html
import json
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.errors import ExtensionError

from tinytorch.book.assets import AssetsError, build_assets

VIEW = "application/vnd.jupyter.widget-view+json"
STATE = "application/vnd.jupyter.widget-state+json"


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the extension; Sphinx calls this."""
    app.connect("config-inited", _use_own_assets)
    app.connect("config-inited", _leave_out_sources)
    app.connect("builder-inited", _build_assets, priority=1)
    app.connect("builder-inited", _unplug_thebe, priority=1)
    app.connect("source-read", _inline_pictures)
    app.connect("doctree-read", _drop_empty_heads)
    # The theme's Font Awesome replaces <i> by <svg>; widgets lose their icons unless it goes inside.
    app.add_js_file(None, body="window.FontAwesomeConfig = { autoReplaceSvg: 'nest' }", priority=10)
    app.add_css_file("widgets.css")
    app.add_css_file("book.css", priority=900)
    app.add_js_file("book.js", defer="defer")
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _assets(app: Sphinx) -> Path:
    return Path(app.confdir) / "_build" / "assets"


def _use_own_assets(app: Sphinx, config: Config) -> None:
    static = _assets(app) / "static"
    static.mkdir(parents=True, exist_ok=True)  # Sphinx warns of a path that is not there yet
    config.html_static_path += [str(Path(__file__).parent / "static"), str(static)]
    config.mathjax_path = "mathjax/tex-mml-chtml.js"
    config.nb_ipywidgets_js = {"widgets.js": {"defer": "defer"}}


def _leave_out_sources(app: Sphinx, config: Config) -> None:
    # A chapter's text source lies beside the executed notebook made from it; only the notebook is a page.
    root = Path(app.srcdir)
    twins = (notebook.with_suffix(".md") for notebook in root.glob("chapters/**/*.ipynb"))
    config.exclude_patterns += [twin.relative_to(root).as_posix() for twin in twins if twin.exists()]


def _build_assets(app: Sphinx) -> None:
    if app.builder.format != "html":
        return
    try:
        build_assets(_assets(app))
    except AssetsError as error:
        raise ExtensionError(str(error)) from error


def _unplug_thebe(app: Sphinx) -> None:
    # Jupyter Book always loads sphinx-thebe, which puts a CDN's script and a stranger's repository into each page.
    for listeners in app.events.listeners.values():
        for listener in [each for each in listeners if each.handler.__module__.startswith("sphinx_thebe")]:
            listeners.remove(listener)


def _inline_pictures(app: Sphinx, docname: str, source: list[str]) -> None:
    if not app.env.doc2path(docname).endswith(".ipynb"):
        return
    notebook = json.loads(source[0])
    models = notebook["metadata"].get("widgets", {}).get(STATE, {}).get("state", {})
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            view = output.get("data", {}).get(VIEW)
            if view and (markup := _markup(view, models)):
                output["data"] = {"text/html": markup}
    source[0] = json.dumps(notebook)


def _drop_empty_heads(app: Sphinx, doctree: nodes.document) -> None:
    # Markdown has no table without a head; a head without words is a puzzle for a screen reader.
    for head in list(doctree.findall(nodes.thead)):
        if not head.astext().strip():
            head.parent.remove(head)


def _markup(view: dict[str, Any], models: dict[str, Any]) -> str | None:
    model = models.get(view["model_id"], {"state": {}})
    state = model["state"]
    if model.get("model_name") == "HTMLModel":
        return state["value"]  # a still figure needs no script
    if "tinytorch-explorer" in state.get("_dom_classes", ()):
        # The first stop is there before the script that moves it, on paper, and where no script runs.
        frame = models[state["children"][-1].removeprefix("IPY_MODEL_")]["state"]
        first = f"{frame['frames'][0]}<p>{html.escape(frame['sentences'][0])}</p>"
        return f'<script type="{VIEW}">{json.dumps(view)}</script><div class="tinytorch-still">{first}</div>'
    return None
