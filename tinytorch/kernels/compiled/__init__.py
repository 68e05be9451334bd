"""The same operations in machine code for this processor, from Python: the only kernels that import Numba."""
