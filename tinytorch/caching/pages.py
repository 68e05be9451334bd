"""`PagePool`: memory for the keys and values of many sequences, in pages that are handed out and taken back."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Iterable
from typing import Any, Self

import numpy as np

from tinytorch.nn.cache import sizes_of


class OutOfPages(RuntimeError):
    """More pages are wanted than are free. Nothing was changed."""


class PagePool:
    """Memory for keys and values, allocated once and cut into pages of equal size; who holds a page is counted.

    A page has room for `page_size` positions of one sequence, in all layers. Sequences take pages as they grow, so that
    none reserves memory for a length that it may never reach, and two that begin with the same tokens can hold the same
    pages. All pages are for one model.

    Source: Kwon et al., "Efficient memory management for large language model serving with PagedAttention" (2023),
    sections 4.2 (pages, there called blocks) and 4.4 (counts of holders).

    Parameters
    ----------
    num_pages, page_size
        How many pages, and for how many positions each.
    num_layers, num_kv_heads, head_dim
        Of the model; `num_kv_heads` counts the heads of keys and values.

    Attributes
    ----------
    memory
        float32 (num_pages, num_layers, 2, num_kv_heads, page_size, head_dim): keys, then values. Pages come first, so
        that one page is one piece of memory, copied in one go, and within it so is each layer.

    Raises
    ------
    ValueError
        If a size is below 1.

    Examples
    --------
    >>> pool = PagePool(num_pages=64, page_size=16, num_layers=4, num_kv_heads=4, head_dim=32)
    >>> pool.nbytes, pool.page_nbytes
    (4194304, 65536)
    >>> pool.allocate(3), pool.free_pages
    ([0, 1, 2], 61)
    """

    def __init__(self, num_pages: int, page_size: int, num_layers: int, num_kv_heads: int, head_dim: int) -> None:
        sizes = {"num_pages": num_pages, "page_size": page_size, "num_layers": num_layers}
        sizes |= {"num_kv_heads": num_kv_heads, "head_dim": head_dim}
        for name, size in sizes.items():
            if size < 1:
                raise ValueError(f"{name} of a pool must be at least 1, not {size}")
        self.num_pages, self.page_size, self.num_layers = num_pages, page_size, num_layers
        self.num_kv_heads, self.head_dim = num_kv_heads, head_dim
        self.memory = np.zeros((num_pages, num_layers, 2, num_kv_heads, page_size, head_dim), np.float32)
        self._holders = [0] * num_pages
        self._free = list(range(num_pages))[::-1]  # a stack: the page given back last may still be in the CPU's cache
        self._model: weakref.ref[Any] | None = None

    @classmethod
    def of(cls, model: Any, num_pages: int, page_size: int = 16) -> Self:
        """Return a pool for a GPT. A TypeError if the model is none."""
        return cls(num_pages, page_size, *sizes_of(model))

    @property
    def keys(self) -> np.ndarray:
        """The keys of all pages, a view: (num_pages, num_layers, num_kv_heads, page_size, head_dim)."""
        return self.memory[:, :, 0]

    @property
    def values(self) -> np.ndarray:
        """The values of all pages, a view of the same shape."""
        return self.memory[:, :, 1]

    @property
    def nbytes(self) -> int:
        """Bytes allocated for all pages."""
        return self.memory.nbytes

    @property
    def page_nbytes(self) -> int:
        """Bytes of one page."""
        return self.memory[0].nbytes

    @property
    def free_pages(self) -> int:
        """How many pages nobody holds."""
        return len(self._free)

    def holders(self, page: int) -> int:
        """Return how many hold this page. An IndexError if there is no such page."""
        if not 0 <= page < self.num_pages:
            raise IndexError(f"this pool has pages 0 ... {self.num_pages - 1}, not {page}")
        return self._holders[page]

    def check(self, wanted: int) -> None:
        """Raise `OutOfPages` if fewer pages than `wanted` are free."""
        if wanted > self.free_pages:
            raise OutOfPages(
                f"{wanted} pages of {self.page_size} positions are wanted, {self.free_pages} of {self.num_pages} are "
                "free: release a sequence or evict prefixes, or make a larger pool"
            )

    def allocate(self, count: int) -> list[int]:
        """Take `count` free pages for one holder; what stands in them is left over from others.

        Raises
        ------
        OutOfPages
            If there are not so many; nothing is taken then.
        ValueError
            If `count` is negative.
        """
        if count < 0:
            raise ValueError(f"{count} pages cannot be allocated")
        self.check(count)
        pages = [self._free.pop() for _ in range(count)]
        for page in pages:
            self._holders[page] = 1
        return pages

    def share(self, pages: Iterable[int]) -> None:
        """Count one holder more for each page. A ValueError if one is free; none is counted then.

        An IndexError if there is no such page.
        """
        pages = list(pages)
        for page in pages:
            if not self.holders(page):
                raise ValueError(f"page {page} is free: only a page that somebody holds can be shared")
        for page in pages:
            self._holders[page] += 1

    def free(self, pages: Iterable[int]) -> None:
        """Count one holder less for each page; those that nobody holds any more are free.

        A ValueError if a page has fewer holders than times it is given back; none is given back then.
        """
        pages = list(pages)
        for page, times in Counter(pages).items():
            if self.holders(page) < times:
                raise ValueError(f"page {page} is given back {times} times, but has {self.holders(page)} holders")
        for page in pages:
            self._holders[page] -= 1
            if not self._holders[page]:
                self._free.append(page)

    def belong_to(self, model: Any) -> None:
        """Remember the model that fills the pages. A ValueError if another one has filled some that are held."""
        owner = self._model() if self._model is not None else None
        if self.free_pages < self.num_pages and owner is not None and owner is not model:
            raise ValueError("this pool holds keys and values of another model: release them all, or make another pool")
        self._model = weakref.ref(model)

    def __repr__(self) -> str:
        return (
            f"PagePool(num_pages={self.num_pages}, page_size={self.page_size}, num_layers={self.num_layers}, "
            f"num_kv_heads={self.num_kv_heads}, head_dim={self.head_dim}): "
            f"{self.free_pages} free, {self.nbytes:,} bytes"
        )
