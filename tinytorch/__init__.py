"""TinyTorch: a NumPy framework with autograd, written to be read, and the code of the textbook of the same name."""

from tinytorch import nn, optim
from tinytorch.autograd import Function, is_grad_enabled, no_grad
from tinytorch.kernels.backend import backend, get_num_threads, set_num_threads
from tinytorch.tensor import Tensor, cat

__version__ = "0.1.0"
__all__ = [
    "Function",
    "Tensor",
    "backend",
    "cat",
    "get_num_threads",
    "is_grad_enabled",
    "nn",
    "no_grad",
    "optim",
    "set_num_threads",
]
