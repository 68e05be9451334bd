"""The same operations for Numba: machine code for the processor at hand, from Python. The only folder that imports it."""
