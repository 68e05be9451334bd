"""`PrefixCache`: full pages of prompts, kept for prompts that begin with the same tokens."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice

import numpy as np

from tinytorch.caching.paged import PagedKVCache
from tinytorch.caching.pages import PagePool


@dataclass(eq=False)
class _Kept:
    """A page that is kept, where it is found by its tokens, and the pages known to follow it."""

    page: int
    tokens: tuple[int, ...]
    siblings: dict[tuple[int, ...], _Kept]
    following: dict[tuple[int, ...], _Kept] = field(default_factory=dict)


class PrefixCache:
    """Full pages of prompts, kept so that a prompt that begins with the same tokens need not compute them again.

    Keys and values of a position depend on all tokens up to it. So the pages form a tree: each is found behind the page
    before it, by its own tokens; they are compared, not only hashed. A page that is kept has one holder more.

    Sources: Kwon et al., "Efficient memory management for large language model serving with PagedAttention" (2023),
    section 4.4, on shared prefixes; the tree and giving up what was used least recently: Zheng et al., "SGLang:
    Efficient execution of structured language model programs" (2024), section 3.

    Examples
    --------
    >>> pool = PagePool(num_pages=8, page_size=2, num_layers=1, num_kv_heads=1, head_dim=2)
    >>> cache, prefixes = PagedKVCache(pool), PrefixCache(pool)
    >>> _ = cache.update(0, np.ones((1, 1, 5, 2)), np.ones((1, 1, 5, 2)))
    >>> prefixes.insert([7, 3, 7, 1, 4], cache)
    2
    >>> prefixes.match([7, 3, 7, 2]).pages, prefixes.match([7, 3, 7, 1]).length, prefixes.match([3, 7]).length
    ([0], 2, 0)
    """

    def __init__(self, pool: PagePool) -> None:
        self.pool = pool
        self._first: dict[tuple[int, ...], _Kept] = {}
        # By page, least recently used first; a page always after those that follow it in a text.
        self._kept: OrderedDict[int, _Kept] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def pages(self) -> list[int]:
        """The numbers of the pages kept, the least recently used first."""
        return list(self._kept)

    def match(self, tokens: Sequence[int] | np.ndarray) -> PagedKVCache:
        """Return a cache that shares the longest run of full pages known for the beginning of a prompt (T,).

        At least one token is left over: without computing one there are no scores. Go on with tokens[cache.length:].
        A ValueError if there is no token.
        """
        known = self._walk(_as_row(tokens)[:-1])
        self._use(known)
        return PagedKVCache(self.pool, [kept.page for kept in known])

    def insert(self, tokens: Sequence[int] | np.ndarray, cache: PagedKVCache) -> int:
        """Keep the pages of `cache` that are full of `tokens` (T,), its first T ones. Return how many are new.

        Where a page is known for these tokens already, that one is kept and not the one of `cache`.

        Raises
        ------
        ValueError
            If there is no token, the cache is of another pool or holds fewer positions, or one of its pages is kept for
            other tokens; nothing is kept then.
        """
        row, pages, size = _as_row(tokens), cache.pages, self.pool.page_size
        if cache.pool is not self.pool:
            raise ValueError("this cache has its pages in another pool than the PrefixCache")
        if len(row) > cache.length:
            raise ValueError(f"the cache holds {cache.length} positions, not those of {len(row)} tokens")
        known = self._walk(row)
        places = range(len(known), len(row) // size)
        for page in (pages[place] for place in places):
            if page in self._kept:
                raise ValueError(f"page {page} of this cache is kept for other tokens: pass the tokens that it holds")
        self.pool.share(pages[place] for place in places)
        for place in places:
            siblings = known[-1].following if known else self._first
            kept = _Kept(pages[place], tuple(row[place * size : place * size + size]), siblings)
            siblings[kept.tokens] = self._kept[kept.page] = kept
            known.append(kept)
        self._use(known)
        return len(places)

    def evict(self, count: int) -> int:
        """Free the `count` least recently used of the pages that nobody else holds, or all if they are fewer.

        Pages behind an evicted one that others hold are forgotten with it: no prompt could reach them any more. Return
        how many pages were freed. A ValueError if `count` is negative.
        """
        if count < 0:
            raise ValueError(f"{count} pages cannot be evicted")
        evicted = list(islice((kept for kept in self._kept.values() if self.pool.holders(kept.page) == 1), count))
        for kept in evicted:
            self._forget(kept)
        return len(evicted)

    def clear(self) -> None:
        """Forget all prompts; pages that nobody else holds are free."""
        for kept in list(self._first.values()):
            self._forget(kept)

    def _walk(self, row: list[int]) -> list[_Kept]:
        """Return the pages known for the beginning of a row of tokens."""
        known, following, size = [], self._first, self.pool.page_size
        for at in range(0, len(row) - size + 1, size):
            kept = following.get(tuple(row[at : at + size]))
            if kept is None:
                break
            known.append(kept)
            following = kept.following
        return known

    def _use(self, known: list[_Kept]) -> None:
        for kept in reversed(known):
            self._kept.move_to_end(kept.page)

    def _forget(self, kept: _Kept) -> None:
        """Give up a page and all behind it."""
        del kept.siblings[kept.tokens]
        behind = [kept]
        while behind:
            kept = behind.pop()
            behind += kept.following.values()
            del self._kept[kept.page]
            self.pool.free([kept.page])


def _as_row(tokens: Sequence[int] | np.ndarray) -> list[int]:
    row = np.asarray(tokens)
    if row.ndim != 1 or not row.size or row.dtype.kind not in "iu":
        raise ValueError(f"a prompt is (T,) token numbers with T >= 1, got {row.shape} {row.dtype}")
    return [int(token) for token in row]
