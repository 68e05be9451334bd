"""What a model holds, to be compared with what it holds later."""

import numpy as np

from tinytorch import nn

State = tuple[dict[str, np.ndarray], list[bool]]


def state_of(model: nn.Module) -> State:
    """Return copies of a model's arrays, and which of its modules are in training mode."""
    arrays = {name: array.copy() for name, array in model.state_dict().items()}
    return arrays, [module.training for module in model.modules()]


def assert_same_state(a: State, b: State) -> None:
    """The same arrays, NaN where there were NaN, and the same modes."""
    assert a[1] == b[1]
    assert a[0].keys() == b[0].keys()
    for name in a[0]:
        np.testing.assert_array_equal(a[0][name], b[0][name])
