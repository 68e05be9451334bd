"""What a cache of keys and values takes in memory, on paper: for the models here, and for published ones."""

from __future__ import annotations

from dataclasses import dataclass

from tinytorch.nn import GPT


def kv_cache_bytes(
    *, seq_len: int, num_layers: int, num_kv_heads: int, head_dim: int, batch_size: int = 1, itemsize: int = 4
) -> int:
    """Return the bytes of keys and values: 2 for each position, layer, head of keys, and number of a head.

    >>> kv_cache_bytes(seq_len=256, num_layers=4, num_kv_heads=4, head_dim=32)
    1048576

    Raises
    ------
    ValueError
        If a size is below 1; a sequence of length 0 has a cache of 0 bytes.
    """
    sizes = {"num_layers": num_layers, "num_kv_heads": num_kv_heads, "head_dim": head_dim}
    for name, size in (sizes | {"batch_size": batch_size, "itemsize": itemsize}).items():
        if size < 1:
            raise ValueError(f"{name} must be at least 1, not {size}")
    if seq_len < 0:
        raise ValueError(f"seq_len cannot be negative: {seq_len}")
    return 2 * batch_size * seq_len * num_layers * num_kv_heads * head_dim * itemsize


@dataclass(frozen=True)
class ModelShape:
    """The sizes of a decoder that its cache depends on.

    Attributes
    ----------
    max_seq_len
        Positions that it was trained for.
    source
        Where the sizes come from.
    """

    name: str
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    max_seq_len: int
    source: str

    def kv_cache_bytes(self, seq_len: int, batch_size: int = 1, itemsize: int = 2) -> int:
        """Return the bytes of its cache for so many positions, of 16 bits a number unless `itemsize` says otherwise.

        A ValueError if one is below 1, or `seq_len` below 0.
        """
        sizes = {"num_layers": self.num_layers, "num_kv_heads": self.num_kv_heads, "head_dim": self.head_dim}
        return kv_cache_bytes(seq_len=seq_len, batch_size=batch_size, itemsize=itemsize, **sizes)


def shape_of(model: GPT, name: str = "this model") -> ModelShape:
    """Return the sizes of one of our models."""
    attention = model.blocks[0].attention
    heads = model.num_heads, attention.num_kv_heads, attention.head_dim
    return ModelShape(name, model.num_layers, *heads, model.max_seq_len, "its own attributes")


_GPT2 = (
    'Radford et al., "Language models are unsupervised multitask learners" (2019), table 2; heads of 64 numbers, as in '
    "the published code"
)
_LLAMA1 = 'Touvron et al., "LLaMA: Open and efficient foundation language models" (2023), table 2'
_LLAMA2 = 'Touvron et al., "Llama 2: Open foundation and fine-tuned chat models" (2023), table 1'
_LLAMA3 = 'Dubey et al., "The Llama 3 herd of models" (2024), table 3'
_LENGTH3 = "length: the model card of Llama 3 (2024)"

PUBLISHED = {
    shape.name: shape
    for shape in (
        ModelShape("GPT-2", 12, 12, 12, 64, 1024, _GPT2),
        ModelShape("GPT-2 medium", 24, 16, 16, 64, 1024, _GPT2),
        ModelShape("GPT-2 large", 36, 20, 20, 64, 1024, _GPT2),
        ModelShape("GPT-2 XL", 48, 25, 25, 64, 1024, _GPT2),
        ModelShape("Llama 2 7B", 32, 32, 32, 128, 4096, f"{_LLAMA1}; length: {_LLAMA2}"),
        ModelShape("Llama 2 13B", 40, 40, 40, 128, 4096, f"{_LLAMA1}; length: {_LLAMA2}"),
        ModelShape("Llama 2 70B", 80, 64, 8, 128, 4096, f"its published configuration; shared keys: {_LLAMA2}"),
        ModelShape("Llama 3 8B", 32, 32, 8, 128, 8192, f"{_LLAMA3}; {_LENGTH3}"),
        ModelShape("Llama 3 70B", 80, 64, 8, 128, 8192, f"{_LLAMA3}; {_LENGTH3}"),
        ModelShape("Llama 3.1 405B", 126, 128, 8, 128, 131072, f"{_LLAMA3}; length: its section 3.4.2"),
    )
}
