"""`KVCache`: the keys and values of all layers of a model; `Layers`: what it has in common with other caches."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from typing import Any, Generic, Protocol, Self, TypeVar, overload

import numpy as np

from tinytorch.nn.attention import PastKeyValue, check_sizes


class LayerCache(Protocol):
    """A layer's part of a cache, as `MultiHeadAttention` takes it.

    It has `append(key, value)`, which returns all keys and values as arrays, or `attend(q, key, value)`, which adds
    them and computes attention by itself.
    """

    length: int

    @property
    def starts(self) -> np.ndarray | None:
        """The position at which each sequence begins (batch_size,), or None if all begin at 0."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The (batch_size, num_kv_heads, positions, head_dim) that it can hold."""

    @property
    def nbytes(self) -> int:
        """Bytes allocated."""

    def check(self, shape: tuple[int, ...]) -> None:
        """Raise an error if keys (B, H, T, d) of `shape` do not fit."""

    def reset(self) -> None:
        """Forget all positions."""


def sizes_of(model: Any) -> tuple[int, int, int]:
    """Return what a cache has to know of a GPT: num_layers, num_kv_heads, head_dim. A TypeError if it is none."""
    if not hasattr(model, "max_seq_len"):
        raise TypeError(f"a cache is for an nn.GPT, not {type(model).__name__}: it holds what attention looks at")
    attention = model.blocks[0].attention
    return model.num_layers, attention.num_kv_heads, attention.head_dim


L = TypeVar("L", bound=LayerCache)


class Layers(Sequence[L], Generic[L]):
    """A cache of one item for each layer of a model: pass it as `past_key_values`. A ValueError if there is none."""

    def __init__(self, layers: list[L]) -> None:
        if not layers:
            raise ValueError("a cache is for 1 or more layers, not 0")
        self._layers = layers
        self._model: weakref.ref[Any] | None = None

    @classmethod
    def of(cls, model: Any, batch_size: int = 1, max_seq_len: int | None = None) -> Self:
        """Return an empty cache for a GPT, for its longest sequence or `max_seq_len` positions.

        A TypeError if the model is none.
        """
        of_model = sizes_of(model)
        sizes: Any = batch_size, model.max_seq_len if max_seq_len is None else max_seq_len, *of_model
        return cls(*sizes)

    @overload
    def __getitem__(self, layer_idx: int) -> L: ...
    @overload
    def __getitem__(self, layer_idx: slice) -> list[L]: ...
    def __getitem__(self, layer_idx: int | slice) -> L | list[L]:
        return self._layers[layer_idx]

    def __iter__(self) -> Iterator[L]:
        return iter(self._layers)

    def __len__(self) -> int:
        return len(self._layers)

    @property
    def shape(self) -> tuple[int, ...]:
        """The (num_layers, batch_size, num_kv_heads, positions, head_dim) that it can hold."""
        return (len(self), *self._layers[0].shape)

    @property
    def length(self) -> int:
        """How many positions every layer has seen."""
        return min(layer.length for layer in self._layers)

    @property
    def nbytes(self) -> int:
        """Bytes allocated for all layers."""
        return sum(layer.nbytes for layer in self._layers)

    @property
    def starts(self) -> np.ndarray | None:
        """The position at which each sequence begins (batch_size,), or None if all begin at 0."""
        return self._layers[0].starts

    def truncate(self, length: int) -> None:
        """Forget all positions but the first `length`. A ValueError if the cache does not hold so many."""
        if not 0 <= length <= self.length:
            raise ValueError(f"the cache holds {self.length} positions: it cannot be cut to {length}")
        for layer in self._layers:
            layer.length = length

    def reset(self) -> None:
        """Forget all positions, and the model that they came from; the memory stays allocated."""
        for layer in self._layers:
            layer.reset()
        self._model = None

    def belong_to(self, model: Any) -> None:
        """Remember the model that fills the cache. A ValueError if another one has filled it before."""
        owner = self._model() if self._model is not None else None
        if owner is model:
            return
        if self.length and owner is not None:
            raise ValueError("this cache holds the keys and values of another model: reset() it, or make another cache")
        self._model = weakref.ref(model)

    def __repr__(self) -> str:
        layers, batch, heads, capacity, dim = self.shape
        return (
            f"{type(self).__name__}(batch_size={batch}, max_seq_len={capacity}, num_layers={layers}, "
            f"num_kv_heads={heads}, head_dim={dim}): {self.length} positions, {self.nbytes:,} bytes"
        )


class KVCache(Layers[PastKeyValue]):
    """What a model remembers of the positions it has seen, in memory allocated once: pass it as `past_key_values`.

    One `PastKeyValue` for each layer. All sequences of a batch end at the same position; those that are shorter begin
    later (see `starts`).

    Parameters
    ----------
    batch_size, max_seq_len, num_layers, num_kv_heads, head_dim
        `keys` and `values` are float32 arrays (num_layers, batch_size, num_kv_heads, max_seq_len, head_dim). With
        grouped-query attention `num_kv_heads` counts the heads of keys and values.

    Raises
    ------
    ValueError
        If a size is below 1.

    Examples
    --------
    >>> cache = KVCache(batch_size=1, max_seq_len=256, num_layers=4, num_kv_heads=4, head_dim=32)
    >>> cache.nbytes, cache.length
    (1048576, 0)
    """

    def __init__(self, batch_size: int, max_seq_len: int, num_layers: int, num_kv_heads: int, head_dim: int) -> None:
        sizes = batch_size, num_kv_heads, max_seq_len, head_dim
        check_sizes(sizes)
        self.keys, self.values = (np.zeros((max(num_layers, 0), *sizes), np.float32) for _ in range(2))
        super().__init__([PastKeyValue(*sizes, part) for part in zip(self.keys, self.values, strict=True)])

    def begin_at(self, starts: np.ndarray) -> None:
        """Let each sequence begin at a position of its own (batch_size,): what comes before is padding, seen by none.

        Raises
        ------
        ValueError
            If the cache is not empty, or there is not one position for each sequence.
        """
        starts = np.asarray(starts).astype(np.int64)
        if self.length or starts.shape != self.shape[1:2] or starts.min() < 0:
            raise ValueError(f"{self.shape[1]} sequences of an empty cache begin at as many positions, got {starts}")
        for layer in self._layers:
            layer.starts = starts if starts.any() else None

    def update(self, layer_idx: int, key: np.ndarray, value: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Add keys and values (B, H, T, d) of T new positions to a layer; return views of all: (B, H, length, d).

        Raises
        ------
        IndexError
            If there is no such layer.
        ValueError
            If they do not fit; the cache stays as it was.
        """
        if not 0 <= layer_idx < len(self):
            raise IndexError(f"this cache has layers 0 ... {len(self) - 1}, not {layer_idx}")
        return self._layers[layer_idx].append(key, value)
