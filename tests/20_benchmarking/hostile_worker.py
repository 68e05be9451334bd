"""A worker whose submissions are what one must not be: a program, an expression of Python over its input x."""

import ctypes
import json
import os
import pathlib
import struct
import subprocess
import sys
import time

import numpy as np

from tinytorch.benchmarks.tinymlperf import worker
from tinytorch.benchmarks.tinymlperf.rejection import Code, Rejected

__all__ = ["ctypes", "pathlib", "struct"]  # for the expressions


def text(value):
    """Anything, as numbers that the evaluator takes."""
    return np.frombuffer(json.dumps(value).encode(), np.uint8).astype(np.float32)


def spawn():
    return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"]).pid


def deaf():
    os.closerange(3, 30)
    time.sleep(1000)


def write_to_every_pipe(raw):
    for pipe in range(3, 30):
        try:
            os.write(pipe, raw)
        except OSError:
            continue
    time.sleep(1000)


def limits():
    import resource  # not on Windows

    names = [name for name in dir(resource) if name.startswith("RLIMIT_")]
    return {name: resource.getrlimit(getattr(resource, name))[0] for name in names}


def refuse():
    raise Rejected(Code.BAD_VALUE, "a scale is zero")


class Program:
    def __init__(self, does):
        self.does, self.memory = does, 0.0

    def reset(self, batch):
        self.memory = float(batch)

    def step(self, ids):
        self.memory += ids.sum()
        return np.full(1, self.memory, np.float32)

    def generate(self, ids, count):
        return np.full((len(ids), count), ids.sum(), np.float32)

    def run(self, inputs):
        return eval(self.does, globals() | {"x": inputs["x"]})


def load(path, limits):
    does = pathlib.Path(path).read_text()
    if does == "refused":
        raise Rejected(Code.CYCLE, "a node uses itself")
    if does == "slow to load":
        time.sleep(1000)
    if does == "memory taken at once":
        np.ones(10**10, np.uint8)
    return Program(does)


if __name__ == "__main__":
    worker.serve(load)
