"""The package's own code inside a chapter: named in the source, written out in the notebook.

Only Sphinx understands ``literalinclude``; JupyterLab and GitHub show nothing in its place. So a chapter's source names
the object, as for Sphinx, and the notebook that is built from it holds the code, from the package as it is now::

    ```{literalinclude} ../../tinytorch/ops/attention.py
    :pyobject: ScaledDotProductAttention
    ```
"""

from __future__ import annotations

import ast
import re
import textwrap
from pathlib import Path

_DIRECTIVE = re.compile(r"^```\{literalinclude\} (\S+)\n:pyobject: (\S+)\n```$", re.MULTILINE)


class IncludeError(ValueError):
    """A chapter shows code that is not there; the message names the file and the object."""


def expand(markdown: str, folder: Path) -> str:
    """Return a cell's Markdown with the code itself in place of every directive that names it.

    Parameters
    ----------
    markdown
        The text of one cell.
    folder
        The chapter's folder: paths are relative to it.

    Raises
    ------
    IncludeError
        If a file cannot be read, or holds no class or function of that name.
    """
    return _DIRECTIVE.sub(lambda directive: _fence(folder / directive[1], directive[2]), markdown)


def source_of(path: Path, name: str) -> str:
    """Return the code of a class, a function or a method (``Class.method``) in a file, decorators included.

    Raises
    ------
    IncludeError
        If the file cannot be read, or holds nothing of that name.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise IncludeError(f"{path} cannot be shown: {error.strerror}") from None
    scope: ast.AST = ast.parse(text)
    for part in name.split("."):
        inside = (node for node in ast.iter_child_nodes(scope) if getattr(node, "name", None) == part)
        found = next(inside, None)
        if not isinstance(found, ast.ClassDef | ast.FunctionDef):
            raise IncludeError(f"{path} has no {name} to show")
        scope = found
    first = min(node.lineno for node in (scope, *scope.decorator_list))  # type: ignore[attr-defined]
    lines = text.splitlines()[first - 1 : scope.end_lineno]  # type: ignore[attr-defined]
    return textwrap.dedent("\n".join(lines))


def _fence(path: Path, name: str) -> str:
    shown = "/".join(path.parts[path.parts.index("tinytorch") :]) if "tinytorch" in path.parts else path.name
    return f"`{name}` in `{shown}`:\n\n```python\n{source_of(path, name)}\n```"
