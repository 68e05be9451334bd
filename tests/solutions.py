"""What a chapter leaves to its reader, and folds away solved."""

import re
from pathlib import Path
from typing import Any

CHAPTERS = Path(__file__).parents[1] / "chapters"


def solutions(chapter: str) -> list[str]:
    """Return the functions of the folded solutions of a chapter, named by its folder: their source."""
    source = (CHAPTERS / chapter / f"{chapter.partition('_')[2]}.md").read_text(encoding="utf-8")
    return re.findall(r"```python\n(def .*?)```", source, re.DOTALL)


def solved(chapter: str, name: str) -> Any:
    """Return the function of a folded solution."""
    names: dict[str, object] = {}
    exec(next(solution for solution in solutions(chapter) if f"def {name}(" in solution), names)
    return names[name]
