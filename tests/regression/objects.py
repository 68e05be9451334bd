"""Object files of compiled kernels, for a processor that valgrind knows: `... tests.regression.objects FOLDER LANES`.

Valgrind has no AVX-512, and Python under it takes minutes. So kernels are compiled here for AVX2 and FMA, whatever this
processor has, and written out for a small program in C (`driver.c`) to call. What is printed is JSON: the name of the
function in each file.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.regression.lanes import compile_for

SIZE = 1 << 14  # numbers in each of the driver's arrays
CPU = {
    "NUMBA_CPU_NAME": "haswell",
    "NUMBA_CPU_FEATURES": "+sse4.2,+popcnt,+avx,+avx2,+fma,+bmi,+bmi2,+lzcnt,+movbe",
}
Pointers = Callable[[Any, Any, Any], None]


def kernels() -> dict[str, Pointers]:
    """Return functions of the driver's arrays a and b, which hold numbers, and c, which takes the result."""
    import numba

    from tinytorch.kernels.compiled import activation, layer_norm, matmul, softmax

    tile, store, stride, vectors = matmul._product, matmul.store_tile, matmul.WIDTH, matmul.VECTORS
    gelu_of, softmax_of, norm_of = activation._gelu, softmax._softmax, layer_norm._layer_norm

    def product(a, b, c):
        """One tile of the result, 256 deep."""
        left, right, out = numba.carray(a, (SIZE,)), numba.carray(b, (SIZE,)), numba.carray(c, (SIZE,))
        store(tile(left, 0, 256, 1, right, 0, stride, 256), out, 0, stride, vectors)

    def gelu(a, b, c):
        """1,001 numbers: the last vector is not full."""
        gelu_of(numba.carray(a, (1001,)), numba.carray(c, (1001,)), 0, 1)

    def softmax_rows(a, b, c):
        """8 rows of 101."""
        softmax_of(numba.carray(a, (808,)), numba.carray(c, (808,)), 101, 0, 8)

    def norm(a, b, c):
        """16 rows of 101."""
        x, weights, out = numba.carray(a, (1616,)), numba.carray(b, (202,)), numba.carray(c, (1648,))
        norm_of(x, weights[:101], weights[101:], 1e-5, out[:1616], out[1616:1632], out[1632:], 0, 1)

    return {"matmul tile": product, "gelu": gelu, "softmax": softmax_rows, "layer_norm": norm}


def write(folder: Path) -> dict[str, str]:
    """Write KERNEL.o for each kernel; return the name of its function of three pointers."""
    import numba

    pointer = numba.types.CPointer(numba.types.float32)
    symbols = {}
    for name, function in kernels().items():
        made = numba.cfunc(numba.types.void(pointer, pointer, pointer))(function)
        library = made._library
        code = library._codegen._tm.emit_object(library._final_module)
        (folder / f"{name}.o").write_bytes(code)
        symbols[name] = made._wrapper_name
    return symbols


if __name__ == "__main__":
    target, lanes = Path(sys.argv[1]), int(sys.argv[2])
    compile_for(lanes, target / "cache")
    print(json.dumps(write(target)))
