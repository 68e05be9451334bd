"""How large a submission may be, and how much its run may take."""

from __future__ import annotations

from dataclasses import dataclass

_MIB = 2**20


@dataclass(frozen=True)
class Limits:
    """Caps on everything that a submission declares, contains or takes. What exceeds one is rejected.

    Attributes
    ----------
    file_bytes
        The whole file, and also each tensor as its shape declares it.
    header_bytes
        The file's header, the graph in it.
    metadata_entries
        The texts in the header beside the tensors.
    json_depth
        Lists and objects inside one another.
    json_digits
        The characters of one number.
    name_length
        The characters of one name.
    tensors
        The tensors in the file.
    rank
        The dimensions of a tensor or a value.
    dimension
        The size of one dimension.
    nodes
        The operations of the graph.
    node_values
        The inputs of one node, and its outputs.
    activation_bytes
        All values that are alive at once, for one sample.
    flops
        Floating-point operations for one sample, 2 for each multiplication with addition.
    output_bytes
        All outputs of one run together.
    start_seconds
        Until a process has loaded the submission. Kernels that were never compiled here are compiled in that time.
    run_seconds
        One run, from the first byte of its inputs to the last of its outputs.
    memory_bytes
        The address space that a process takes beyond what it has when it starts.

    Raises
    ------
    ValueError
        If one is not above zero.
    """

    file_bytes: int = 64 * _MIB
    header_bytes: int = _MIB
    metadata_entries: int = 16
    json_depth: int = 8
    json_digits: int = 32
    name_length: int = 128
    tensors: int = 1024
    rank: int = 8
    dimension: int = 2**24
    nodes: int = 1024
    node_values: int = 64
    activation_bytes: int = 64 * _MIB
    flops: int = 10**10
    output_bytes: int = 64 * _MIB
    start_seconds: float = 120.0
    run_seconds: float = 60.0
    memory_bytes: int = 2048 * _MIB

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value > 0:
                raise ValueError(f"{name} is {value}: a limit is more than zero")
