"""The reference has every public name, once, and what it says of errors is so."""

import ast
import builtins
import importlib
import inspect
import pkgutil
import re
import types
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from tinytorch import kernels
from tinytorch.book import notebooks
from tinytorch.kernels.backend import Kernel

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "chapters" / "reference"
CONFIG = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))["sphinx"]["config"]
DEFAULTS = CONFIG["autodoc_default_options"]

PACKAGES = (
    "tinytorch",
    "tinytorch.nn",
    "tinytorch.nn.functional",
    "tinytorch.optim",
    "tinytorch.acceleration",
    "tinytorch.quantization",
    "tinytorch.compression",
    "tinytorch.caching",
    "tinytorch.profiling",
    "tinytorch.benchmarks.tinymlperf",
    "tinytorch.data",
    "tinytorch.zoo",
    "tinytorch.book",
)
NO_OPERATIONS = {"backend", "dot", "machine", "progress", "together", "warmup"}  # of the modules of kernels
_ENTRY = re.compile(r"^\.\. (?:auto|py:)(\w+):: (tinytorch[\w.]+)\n((?:   .*\n|\n(?=   ))*)", re.MULTILINE)
_SECTION = re.compile(r"^(\w+)\n-+$", re.MULTILINE)


class Entry(NamedTuple):
    """A directive of a page: what it shows, under which name, with which options."""

    page: str
    kind: str
    name: str
    options: str


def entries() -> list[Entry]:
    return [
        Entry(page.stem, *found)
        for page in sorted(PAGES.glob("*.md"))
        for found in _ENTRY.findall(page.read_text(encoding="utf-8"))
    ]


def resolve(name: str) -> Any:
    """Return what stands at a path of modules and names."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for part in parts[length:]:
            found = getattr(found, part)
        return found
    raise ModuleNotFoundError(name)


def public_names(package: str) -> list[str]:
    """Return `__all__`, or, where there is none, what the module itself defines."""
    module = importlib.import_module(package)
    own = [name for name, value in vars(module).items() if getattr(value, "__module__", None) == package]
    return getattr(module, "__all__", None) or [name for name in own if not name.startswith("_")]


def operations() -> list[str]:
    """Return the paths of the public names of kernels, without the loops that stand behind `backend("naive")`."""
    found = []
    for module in pkgutil.iter_modules(kernels.__path__):
        if module.ispkg or module.name.startswith("_") or module.name in NO_OPERATIONS:
            continue
        path = f"tinytorch.kernels.{module.name}"
        loops = {v._versions.get("naive") for v in vars(importlib.import_module(path)).values() if type(v) is Kernel}
        found += [f"{path}.{name}" for name in public_names(path) if resolve(f"{path}.{name}") not in loops]
    return found


def exists(name: str) -> bool:
    try:
        resolve(name)
    except (AttributeError, ModuleNotFoundError):
        return False
    return True


LOST = [entry for entry in entries() if not exists(entry.name)]
ENTRIES = [entry for entry in entries() if entry not in LOST]
SHOWN = {entry.name: resolve(entry.name) for entry in ENTRIES}
PUBLIC = [f"{package}.{name}" for package in PACKAGES for name in public_names(package)]
CLASSES = {name: shown for name, shown in SHOWN.items() if inspect.isclass(shown)}


def methods(kind: type) -> dict[str, Any]:
    """Return the public methods and properties that classes of ours give to a class, each from where it is defined."""
    found: dict[str, Any] = {}
    for base in reversed(kind.__mro__):
        if base.__module__.startswith("tinytorch"):
            found |= {name: value for name, value in vars(base).items() if not name.startswith("_")}
    fields = getattr(kind, "__dataclass_fields__", {})  # a function may be the default of one
    return {
        name: value
        for name, value in found.items()
        if isinstance(value, types.FunctionType | property | classmethod | staticmethod) and name not in fields
    }


def is_shown_by(entry: Entry, kind: type, name: str) -> bool:
    """Say whether autodoc puts a method on the page with its class: by its own rules, and those of `_config.yml`."""
    if ":no-members:" in entry.options:
        return False
    excluded = DEFAULTS["exclude-members"].split(", ") if ":exclude-members:" not in entry.options else []
    if name in excluded:
        return False
    ends = [] if ":no-inherited-members:" in entry.options else DEFAULTS["inherited-members"].split(", ")
    for base in kind.__mro__:
        if base is not kind and (base.__name__ in ends or not ends):
            return False
        if name in vars(base):
            return True
    return False


def test_every_public_name_stands_in_the_reference():
    missing = [
        name
        for name in PUBLIC
        if not inspect.ismodule(resolve(name)) and not any(resolve(name) is shown for shown in SHOWN.values())
    ]
    assert missing == [], "write `.. autofunction::` or `.. autoclass::` on a page of chapters/reference"


def test_every_operation_of_the_kernels_stands_in_the_reference():
    assert [name for name in operations() if name not in SHOWN] == []


def taken_by_chapters() -> set[str]:
    """Return the public names that code cells of chapters import, or take from a module that they imported."""
    found, imported = set(), dict[str, str]()
    for source in notebooks.sources():
        for cell in re.findall(r"```{code-cell} python\n(.*?)```", source.read_text(encoding="utf-8"), re.DOTALL):
            lines = [line for line in cell.splitlines() if not line.startswith((":", "%", "!"))]
            for node in ast.walk(ast.parse("\n".join(lines))):
                if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tinytorch"):
                    names = {name.asname or name.name: f"{node.module}.{name.name}" for name in node.names}
                    imported |= names
                    found |= set(names.values())
                elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in imported:
                    found.add(f"{imported[node.value.id]}.{node.attr}")
    of_modules = {name for name in found if inspect.ismodule(resolve(name.rpartition(".")[0]))}
    return {name for name in of_modules if not re.search(r"\._|\.compiled", name)}


def test_every_name_that_a_chapter_takes_from_the_package_stands_in_the_reference():
    """But for the insides of compiled kernels, whose machine code a chapter looks at."""
    taken = taken_by_chapters()
    assert len(taken) > 100
    shown = SHOWN.values()
    assert [
        name
        for name in sorted(taken)
        if not inspect.ismodule(resolve(name)) and name not in SHOWN and not any(resolve(name) is one for one in shown)
    ] == []


def test_no_name_stands_there_that_is_gone():
    assert [f"{entry.page}: {entry.name}" for entry in LOST] == []


def test_no_name_stands_there_twice():
    assert [name for name, count in Counter(entry.name for entry in ENTRIES).items() if count > 1] == []
    assert [entry.name for entry in ENTRIES if entry.kind not in ("class", "data", "exception", "function")] == []


def test_every_page_is_in_the_table_of_contents():
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    (listed,) = (part["chapters"][0]["sections"] for part in toc["parts"] if part["caption"] == "Reference")
    pages = {page.stem for page in PAGES.glob("*.md")} - {"README"}
    assert {Path(entry["file"]).stem for entry in listed} == pages
    assert len(listed) == len(pages) == len(set(PACKAGES) - {"tinytorch.nn.functional"}) + 1  # and the kernels


def test_every_public_method_stands_with_its_class_or_with_a_base_that_has_an_entry():
    lost = []
    for name, kind in CLASSES.items():
        places = [entry for entry in ENTRIES if SHOWN[entry.name] in kind.mro()]
        lost += [
            f"{name}.{method}"
            for method in methods(kind)
            if not any(is_shown_by(place, SHOWN[place.name], method) for place in places)
        ]
    assert lost == []


def documented() -> dict[str, str]:
    """Return the docstrings of what is shown, methods included, by path."""
    found = {entry.name: inspect.getdoc(SHOWN[entry.name]) or "" for entry in ENTRIES if entry.kind != "data"}
    for name, kind in CLASSES.items():
        found |= {f"{name}.{method}": inspect.getdoc(getattr(kind, method)) or "" for method in methods(kind)}
    return found


DOCUMENTED = documented()


def test_every_docstring_begins_with_a_sentence():
    def summary(text: str) -> str:
        return text.partition("\n\n")[0].strip()

    without = [name for name, text in DOCUMENTED.items() if not re.search(r"\w.*[.:]$", summary(text), re.DOTALL)]
    assert without == []


def section(text: str, title: str) -> list[str]:
    """Return the heads of the entries of a docstring's section: the lines that are not indented."""
    parts = _SECTION.split(text)
    bodies = [body for head, body in zip(parts[1::2], parts[2::2], strict=True) if head == title]
    return [line for body in bodies for line in body.splitlines() if line and not line.startswith(" ")]


OWN_ERRORS = {
    name
    for module in pkgutil.walk_packages(importlib.import_module("tinytorch").__path__, "tinytorch.")
    if "__main__" not in module.name
    for name, value in vars(importlib.import_module(module.name)).items()
    if inspect.isclass(value) and issubclass(value, BaseException)
}


def test_every_error_that_is_promised_exists():
    promised = {
        (name, error)
        for name, text in DOCUMENTED.items()
        for line in section(text, "Raises")
        for error in line.split(", ")
    }
    assert len(promised) > 100
    unknown = [
        pair for pair in promised if pair[1] not in OWN_ERRORS and not _is_error(getattr(builtins, pair[1], None))
    ]
    assert unknown == []


def _is_error(value: object) -> bool:
    return inspect.isclass(value) and issubclass(value, Exception)


def test_every_parameter_that_is_described_exists():
    """But for `kwargs`, whose names are those of what they are passed on to."""
    wrong = []
    for name, text in DOCUMENTED.items():
        described = {each for line in section(text, "Parameters") for each in line.partition(" : ")[0].split(", ")}
        if described:
            shown = inspect.unwrap(resolve(name)) if name in SHOWN else resolve(name)
            wrong += [(name, each) for each in described - set(inspect.signature(shown).parameters)]
    assert wrong == []


def test_every_function_on_arrays_says_of_what_shape():
    """It, or its module where all functions of one are given the same: axes in parentheses, or that any will do."""
    silent = []
    for name, shown in SHOWN.items():
        if not isinstance(shown, types.FunctionType | Kernel):
            continue
        function = inspect.unwrap(shown)
        hints = [str(parameter.annotation) for parameter in inspect.signature(function).parameters.values()]
        if not any(re.search(r"^(?!.*Callable).*(ndarray|Tensor)\b", hint) for hint in hints):
            continue
        said = f"{DOCUMENTED[name]}\n{inspect.getmodule(function).__doc__}"
        if not re.search(r"\([^()\n]*[\w.],[^()\n]*\)|\bshapes?\b|element by element", said):
            silent.append(name)
    assert silent == []
