"""Every operation that the framework has: tests that promise something of all of them begin here."""

import importlib
import pkgutil

import tinytorch.ops
from tinytorch import Function


def has_derivative(function: type[Function]) -> bool:
    """Say whether it has one; what writes to a cache has none."""
    return function.backward is not Function.backward


def all_functions() -> list[type[Function]]:
    """Return the `Function` subclasses of `tinytorch.ops` by name."""
    for module in pkgutil.walk_packages(tinytorch.ops.__path__, "tinytorch.ops."):
        importlib.import_module(module.name)
    found, todo = [], [Function]
    while todo:
        subclasses = todo.pop().__subclasses__()
        todo += subclasses
        found += [f for f in subclasses if f.__module__.startswith("tinytorch.ops.")]
    return sorted(found, key=lambda f: f.__name__)
