"""`PagedKVCache`: the keys and values of one sequence, in pages of a pool."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, overload

import numpy as np

from tinytorch.caching.pages import PagePool


class PagedKVCache(Sequence["PagedLayer"]):
    """What a model remembers of one sequence, in pages: pass it as `past_key_values`, with one row of tokens.

    It takes pages from the pool as the sequence grows, and has at most one that is partly filled. Pages may be shared
    with other sequences: one that is about to be written is copied first, unless nobody else holds it.

    Source: Kwon et al., "Efficient memory management for large language model serving with PagedAttention" (2023),
    sections 4.1 to 4.4.

    Parameters
    ----------
    pool
        Where the pages come from.
    pages
        Full pages to begin with, in their order. Whoever holds them goes on holding them, too.

    Raises
    ------
    ValueError
        If one of `pages` is free.
    IndexError
        If the pool has no such page.

    Examples
    --------
    >>> pool = PagePool(num_pages=8, page_size=4, num_layers=1, num_kv_heads=1, head_dim=2)
    >>> cache = PagedKVCache(pool)
    >>> keys, values = cache.update(0, np.ones((1, 1, 6, 2)), np.ones((1, 1, 6, 2)))
    >>> keys.shape, cache.pages, pool.free_pages
    ((1, 1, 6, 2), [0, 1], 6)
    >>> copy = cache.fork()
    >>> _ = copy.update(0, np.ones((1, 1, 1, 2)), np.ones((1, 1, 1, 2)))
    >>> cache.pages, copy.pages
    ([0, 1], [0, 2])
    """

    def __init__(self, pool: PagePool, pages: Sequence[int] = ()) -> None:
        pool.share(pages)
        self.pool = pool
        self._pages: list[int] | None = list(pages)
        self._lengths = [len(pages) * pool.page_size] * pool.num_layers
        self._layers = [PagedLayer(self, layer) for layer in range(pool.num_layers)]

    @overload
    def __getitem__(self, layer_idx: int) -> PagedLayer: ...
    @overload
    def __getitem__(self, layer_idx: slice) -> list[PagedLayer]: ...
    def __getitem__(self, layer_idx: int | slice) -> PagedLayer | list[PagedLayer]:
        return self._layers[layer_idx]

    def __len__(self) -> int:
        return len(self._layers)

    @property
    def length(self) -> int:
        """How many positions every layer holds."""
        self._held()
        return min(self._lengths)

    @property
    def pages(self) -> list[int]:
        """The numbers of the pages held, in the order of their positions."""
        return list(self._held())

    @property
    def nbytes(self) -> int:
        """Bytes of the pages held, also of those that others hold too."""
        return len(self._held()) * self.pool.page_nbytes

    @property
    def shape(self) -> tuple[int, ...]:
        """The (num_layers, 1, num_kv_heads, positions, head_dim) that it could grow to with all the free pages."""
        end, size = max(self._lengths), self.pool.page_size
        room = len(self._held()) + self.pool.free_pages - len(self._wanted(end, end + 1)[0])
        return (len(self), 1, self.pool.num_kv_heads, max(room * size, end), self.pool.head_dim)

    def update(self, layer_idx: int, key: np.ndarray, value: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Add keys and values (1, H, T, d) of T new positions to a layer; return all: see `PagedLayer.append`.

        An IndexError if there is no such layer.
        """
        if not 0 <= layer_idx < len(self):
            raise IndexError(f"this cache has layers 0 ... {len(self) - 1}, not {layer_idx}")
        return self._layers[layer_idx].append(key, value)

    def fork(self) -> PagedKVCache:
        """Return a second cache of the same positions, which holds the same pages: nothing is copied before a write."""
        other = PagedKVCache(self.pool, self._held())
        other._lengths = list(self._lengths)
        return other

    def truncate(self, length: int) -> None:
        """Forget all positions but the first `length`, in every layer, and give back the pages behind them.

        `truncate(cache.length)` repairs what an interrupted forward pass left. A ValueError if there are not so many.
        """
        if not 0 <= length <= self.length:
            raise ValueError(f"the cache holds {self.length} positions: it cannot be cut to {length}")
        pages, kept = self._held(), -(-length // self.pool.page_size)
        self.pool.free(pages[kept:])
        del pages[kept:]
        self._lengths = [length] * len(self)

    def reset(self) -> None:
        """Forget all positions and give the pages back; the cache can be filled again."""
        self.truncate(0)

    def release(self) -> None:
        """Give the pages back for good: whatever is done with the cache afterwards is a RuntimeError."""
        self.pool.free(self._held())
        self._pages = None

    def belong_to(self, model: Any) -> None:
        """Remember the model that fills the pool. A ValueError if another one has filled pages of it."""
        self.pool.belong_to(model)

    def __repr__(self) -> str:
        if self._pages is None:
            return "PagedKVCache: released"
        pages = f"{len(self._pages)} pages of {self.pool.page_size}"
        return f"PagedKVCache: {self.length} positions in {pages}, {self.nbytes:,} bytes"

    def _held(self) -> list[int]:
        if self._pages is None:
            raise RuntimeError("this cache was released, its pages may hold other sequences: make another cache")
        return self._pages

    def _wanted(self, start: int, end: int) -> tuple[list[int], int]:
        """Return what writing positions start ... end - 1 takes: places of pages to copy first, number of new pages."""
        pages, size = self._held(), self.pool.page_size
        stop = -(-end // size)
        written = range(start // size, min(stop, len(pages))) if start < end else ()
        return [place for place in written if self.pool.holders(pages[place]) > 1], max(stop - len(pages), 0)

    def _reserve(self, start: int, end: int) -> None:
        """Hold pages for the positions up to `end`, those from `start` on alone. `OutOfPages` changes nothing."""
        pages, pool = self._held(), self.pool
        shared, new = self._wanted(start, end)
        fresh = pool.allocate(len(shared) + new)
        for place, page in zip(shared, fresh, strict=False):
            pool.memory[page] = pool.memory[pages[place]]
            pool.free([pages[place]])
            pages[place] = page
        pages += fresh[len(shared) :]


class PagedLayer:
    """One layer of a `PagedKVCache`, as an attention layer takes it: the cache holds the pages."""

    starts = None  # of a single sequence nothing is padding

    def __init__(self, cache: PagedKVCache, layer_idx: int) -> None:
        self._cache, self._index = cache, layer_idx

    @property
    def length(self) -> int:
        """How many positions this layer holds."""
        self._cache._held()
        return self._cache._lengths[self._index]

    @property
    def shape(self) -> tuple[int, ...]:
        """The (1, num_kv_heads, positions, head_dim) that it could grow to with all the pool's free pages."""
        return self._cache.shape[1:]

    def check(self, shape: tuple[int, ...]) -> None:
        """Raise a ValueError if keys of `shape` are not (1, H, T, d), `OutOfPages` if there are no pages for them."""
        pool = self._cache.pool
        if len(shape) != 4 or (shape[0], shape[1], shape[3]) != (1, pool.num_kv_heads, pool.head_dim):
            raise ValueError(
                f"keys of shape {tuple(shape)} do not belong to one sequence in {pool.num_kv_heads} heads of "
                f"{pool.head_dim} numbers: (1, {pool.num_kv_heads}, T, {pool.head_dim})"
            )
        shared, new = self._cache._wanted(self.length, self.length + shape[2])
        pool.check(len(shared) + new)

    def append(self, key: np.ndarray, value: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Add the keys and values (1, H, T, d) of T new positions; return all: (1, H, length, d), as `gather` does.

        The first layer that is given these positions takes the pages for all.

        Raises
        ------
        ValueError
            If keys and values are not of this shape; the cache stays as it was.
        OutOfPages
            If the pool has not enough pages; the cache stays as it was.
        """
        self.check(key.shape)
        if value.shape != key.shape:
            raise ValueError(f"keys have shape {key.shape}, values {value.shape}")
        cache, size, start = self._cache, self._cache.pool.page_size, self.length
        end = start + key.shape[2]
        cache._reserve(start, end)
        for place in range(start // size, -(-end // size)):
            at = place * size
            first, last = max(start, at), min(end, at + size)
            target = cache.pool.memory[cache._held()[place], self._index, :, :, first - at : last - at]
            target[0], target[1] = (x[0, :, first - start : last - start] for x in (key, value))
        cache._lengths[self._index] = end
        return self.gather()

    def gather(self) -> tuple[np.ndarray, np.ndarray]:
        """Return all keys and values, (1, H, length, d) each, copied page by page.

        The copy is the price of pages in NumPy, whose products want one array; Kwon et al. (section 4.1) wrote a kernel
        that reads the pages where they are.
        """
        pool, length = self._cache.pool, self.length
        out = np.empty((2, 1, pool.num_kv_heads, length, pool.head_dim), np.float32)
        for at, page in zip(range(0, length, pool.page_size), self._cache._held(), strict=False):
            piece = pool.memory[page, self._index, :, :, : length - at]  # (2, H, S, d), of the last page what is filled
            out[:, 0, :, at : at + pool.page_size] = piece
        return out[0], out[1]
