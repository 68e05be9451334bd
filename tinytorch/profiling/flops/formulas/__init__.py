"""What each operation of TinyTorch costs: formulas by family, under the conventions of `flops/count.py`."""

from tinytorch.profiling.flops.formulas import (  # noqa: F401  # each registers its formulas
    activation,
    decoding,
    dynamic,
    elementwise,
    image,
    integers,
    normalization,
    optimizer,
    products,
    reduction,
    shape,
    sparse,
)
