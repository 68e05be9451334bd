"""Knowledge distillation: a model learns from another one's outputs, softened by a temperature.

Source: Hinton, Vinyals & Dean, "Distilling the knowledge in a neural network" (2015), section 2.
"""

from __future__ import annotations

import math

import numpy as np

from tinytorch.autograd import Context, Function
from tinytorch.kernels.softmax import log_softmax, softmax
from tinytorch.nn.finite import check_finite
from tinytorch.nn.functional import cross_entropy
from tinytorch.tensor import Tensor


class SoftCrossEntropy(Function):
    """T^2 times the mean of -sum_j q_j log p_j: p = softmax(outputs / T), q = softmax(teacher / T); (..., C) -> ()."""

    @staticmethod
    def forward(ctx: Context, outputs: np.ndarray, teacher: np.ndarray, temperature: float) -> np.ndarray:
        log_p, q = log_softmax(outputs / temperature), softmax(teacher / temperature)
        ctx.save_for_backward(log_p, q, temperature)
        return np.asarray(-(q * log_p).sum(axis=-1).mean() * temperature**2, outputs.dtype)

    @staticmethod
    def backward(ctx: Context, grad_output: np.ndarray) -> tuple[np.ndarray, None, None]:
        # d/doutputs = T^2 (p - q) / T / rows
        log_p, q, temperature = ctx.saved_tensors
        p = np.exp(log_p)
        p -= q
        p *= grad_output * (temperature * p.shape[-1] / p.size)
        return p, None, None


def distillation_loss(
    outputs: Tensor,
    teacher_outputs: Tensor | np.ndarray,
    labels: Tensor | np.ndarray,
    temperature: float = 4.0,
    alpha: float = 0.9,
) -> Tensor:
    """alpha T^2 times the cross-entropy with the teacher's distribution, plus 1 - alpha times that of the labels.

    Both distributions of the first term are softmax(x / T). A high temperature T shows how the teacher ranks the wrong
    classes; the factor T^2 keeps the gradient's size the same at any T. For T -> infinity its gradient is that of half
    the mean squared difference of the outputs, each row's mean taken away. The teacher gets no gradient.

    Parameters
    ----------
    outputs, teacher_outputs
        Scores (..., C), before any softmax, of the model that learns and of the one that teaches.
    labels
        Class numbers (...), each in 0 ... C - 1.
    temperature
        T, above 0.
    alpha
        The teacher's weight, 0 ... 1.

    Raises
    ------
    ValueError
        If shapes do not fit, a label is no class number, a number is out of range, or the teacher's outputs hold NaN or
        infinite numbers.
    """
    if not 0 < temperature < math.inf:
        raise ValueError(f"the temperature must be above 0, and finite, got {temperature}")
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha is the teacher's weight: it lies in 0 ... 1, got {alpha}")
    teacher = teacher_outputs.data if isinstance(teacher_outputs, Tensor) else np.asarray(teacher_outputs)
    if teacher.shape != outputs.shape:
        raise ValueError(f"outputs of shape {outputs.shape} need a teacher's of that shape, got {teacher.shape}")
    check_finite(teacher, "the teacher's output")
    hard = cross_entropy(outputs, labels)
    soft = SoftCrossEntropy.apply(outputs, teacher.astype(outputs.dtype, copy=False), float(temperature))
    return soft * alpha + hard * (1 - alpha)
