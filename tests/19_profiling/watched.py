"""The five methods that report while somebody watches."""

from tinytorch import nn, optim
from tinytorch.autograd import Function, Node, Variable


def methods() -> list[object]:
    """Return them as they are now."""
    return [
        nn.Module.__call__,
        Function.__dict__["apply"].__func__,
        Node.backward,
        Variable.backward,
        optim.Optimizer.step,
    ]
