"""Modules that only tests and commands import: without Numba they cannot be."""

collect_ignore = ["cases.py", "counted.py", "frozen.py"]
