"""TinyTorch: a NumPy framework with autograd, written to be read, and the code of the textbook of the same name."""

from tinytorch import nn, optim
from tinytorch.autograd import Function, is_grad_enabled, no_grad
from tinytorch.tensor import Tensor, cat

__version__ = "0.1.0"
__all__ = ["Function", "Tensor", "cat", "is_grad_enabled", "nn", "no_grad", "optim"]
