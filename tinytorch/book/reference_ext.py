"""The Sphinx side of the reference: docstrings as they are written here, and names in backticks that become links."""

from __future__ import annotations

import re
from importlib.util import find_spec
from typing import Any

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

BEFORE_NAPOLEON, AFTER_NAPOLEON = 400, 600  # Napoleon's own priority is 500
_FIELDS = {"attribute", "data", "property"}
_NAMED = re.compile(r"<(?:class|function) '?([\w.]+)'?(?: at 0x[0-9a-f]+)?>")
_PARAMETERS = re.compile(r"<dl>\s*(<dd>.*?</dd>)\s*</dl>", re.DOTALL)
_PATH = re.compile(r"tinytorch(\.\w+)+")


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the extension; Sphinx calls this."""
    kept: dict[str, list[str]] = {}

    def keep(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
        kept[name] = list(lines)

    def restore(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
        if what in _FIELDS:  # Napoleon takes what stands before a colon in them for a type
            lines[:] = kept[name]

    app.connect("autodoc-process-docstring", keep, priority=BEFORE_NAPOLEON)
    app.connect("autodoc-process-docstring", restore, priority=AFTER_NAPOLEON)
    app.connect("autodoc-process-signature", _plain_defaults)
    app.connect("autodoc-skip-member", _skip)
    app.connect("missing-reference", _resolve)
    app.connect("html-page-context", _mend_signatures)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _plain_defaults(
    app: Sphinx, what: str, name: str, obj: object, options: object, signature: str | None, returns: str | None
) -> tuple[str, str | None] | None:
    """Write a dataclass's defaults as Python does: Sphinx understands none that stands in angle brackets."""
    if signature is None:
        return None
    return _NAMED.sub(r"\1", signature.replace("<factory>", "...")), returns


def _skip(app: Sphinx, what: str, name: str, obj: object, skip: bool, options: object) -> bool | None:
    """Leave out the fields of named tuples: Python's own words for them say nothing."""
    return True if type(obj).__name__ == "_tuplegetter" else None


def _resolve(app: Sphinx, env: BuildEnvironment, node: pending_xref, shown: nodes.Element) -> nodes.Element | None:
    """Link a name that says enough; leave as it stands what is no name of the package, or is private.

    In docstrings single backticks stand around parameters and expressions as often as around names. A whole path
    (`tinytorch.nn.GPT`) that leads nowhere is a broken reference, and so is a type that no page describes.
    """
    if node.get("refdomain") != "py":
        return None
    target, kind = node["reftarget"], node["reftype"]
    domain = env.get_domain("py")
    found = domain.find_obj(env, None, None, target, None, 1)  # type: ignore[attr-defined]
    if len(found) == 1 and found[0][1].objtype != "module" and (kind != "obj" or target[0].isupper() or "." in target):
        name, entry = found[0]
        page = app.builder.get_relative_uri(node["refdoc"], entry.docname)
        return nodes.reference("", "", shown, internal=True, refuri=f"{page}#{entry.node_id}", reftitle=name)
    if target.rpartition(".")[2].startswith("_"):
        return shown
    return shown if kind == "obj" and (not _PATH.fullmatch(target) or _is_module(target)) else None


def _is_module(path: str) -> bool:
    try:
        return find_spec(path) is not None
    except ModuleNotFoundError:  # what stands before its last dot is no package
        return False


def _mend_signatures(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.Node | None
) -> None:
    """Write parameters that stand one to a line as lines: Sphinx makes a list of definitions without a term of them."""
    if "body" in context:
        context["body"] = _PARAMETERS.sub(
            lambda found: found[1].replace("<dd>", '<div class="tinytorch-parameter">').replace("</dd>", "</div>"),
            context["body"],
        )
