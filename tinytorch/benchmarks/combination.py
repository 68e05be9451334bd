"""Everything at once: the book's two models with several optimisations, each in the form in which it is run."""

from __future__ import annotations

from typing import Any

from tinytorch import data, nn, zoo
from tinytorch.benchmarks.tinymlperf.execution import SPARSE_FROM
from tinytorch.compression import sparse_linears, study, to_sparse
from tinytorch.quantization import INT8Quantizer, quantize_dynamic

REMOVED = ("nothing", "filters_30", "filters_50", "filters_70", "adaptive_90", "adaptive_95")
ZEROS = (0, *study.TEXT_LEVELS)  # percent
BITS = (32, 8, 4)
_CALIBRATION = 256  # images


def trained_cnn(removed: str) -> nn.Sequential:
    """Return the reference CNN without some of its filters or weights, in floats: (N, 1, 28, 28) -> (N, 10).

    A KeyError if the study of chapter 17 has no model of this name.
    """
    return zoo.load("reference_cnn") if removed == "nothing" else study.load(removed)


def smaller_cnn(removed: str, bits: int) -> nn.Module:
    """Return the same without the weights that are zero, or, below 32 bits, in whole numbers."""
    model = trained_cnn(removed)
    if bits < 32:
        images = data.fashion_mnist("train").images[:_CALIBRATION]
        return INT8Quantizer(weight_bits=bits).calibrate(model, images, progress=False).convert(model)
    return to_sparse(model, SPARSE_FROM) if removed.startswith("adaptive") else model


def smaller_gpt(zeros: int, bits: int) -> Any:
    """Return the GPT with so many percent of its weights zero: without them, or with weights in whole numbers.

    Whole numbers know no zeros: all of them are stored, and multiplied.
    """
    model = study.load_text(zeros) if zeros else zoo.load("char_gpt")
    if bits < 32:
        return quantize_dynamic(model, bits)
    return sparse_linears(model, SPARSE_FROM) if zeros else model
