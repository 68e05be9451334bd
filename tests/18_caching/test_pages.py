"""What sequences and prefixes hold in the pages of one pool: no page is lost, none is written by one who shares it."""

import itertools
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from tinytorch.caching.paged import PagedKVCache
from tinytorch.caching.pages import OutOfPages, PagePool
from tinytorch.caching.prefix import PrefixCache

LAYERS, HEADS, DIM = 2, 2, 3
MOST = 5  # sequences at once


def pool_of(num_pages=8, page_size=4) -> PagePool:
    return PagePool(num_pages, page_size, LAYERS, HEADS, DIM)


def positions(numbers) -> np.ndarray:
    """Keys and values (LAYERS, 2, 1, H, T, d) of as many positions as numbers: no two of them are alike."""
    x = np.arange(LAYERS * 2 * HEADS * DIM, dtype=np.float32).reshape(LAYERS, 2, 1, HEADS, 1, DIM)
    return x / 64 + np.array(list(numbers), np.float32)[:, None]


def append(cache: PagedKVCache, numbers) -> None:
    for layer, (key, value) in enumerate(positions(numbers)):
        cache.update(layer, key, value)


def holds(cache: PagedKVCache, numbers) -> bool:
    found = np.stack([np.stack(layer.gather()) for layer in cache])
    return cache.length == len(numbers) and np.array_equal(found, positions(numbers))


# Many sequences over a long time


@dataclass(eq=False)
class Text:
    """What a sequence should hold: its tokens, and the number that tells each of its positions from all others."""

    cache: PagedKVCache
    tokens: list[int] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)


class PagesMachine(RuleBasedStateMachine):
    """Sequences and prefixes on one pool, beside plain lists of what each should hold."""

    page_size, num_pages = 2, 9

    def __init__(self):
        super().__init__()
        self.pool = pool_of(self.num_pages, self.page_size)
        self.prefixes = PrefixCache(self.pool)
        self.texts = [Text(PagedKVCache(self.pool))]
        self.kept: dict[tuple[int, ...], tuple[int, list[int]]] = {}  # page and numbers; least recently used first
        self.count = itertools.count(1)

    def pick(self, data) -> Text:
        return self.texts[data.draw(st.integers(0, len(self.texts) - 1))]

    def known(self, tokens) -> list[tuple[int, ...]]:
        ends = range(self.page_size, len(tokens) + 1, self.page_size)
        return list(itertools.takewhile(self.kept.__contains__, (tuple(tokens[:end]) for end in ends)))

    def use(self, prefixes) -> None:
        for prefix in reversed(prefixes):
            self.kept[prefix] = self.kept.pop(prefix)

    def write(self, text: Text, count: int, layers: int) -> bool:
        """Give positions to some layers. The pages it takes are counted here from what can be seen."""
        end, held = len(text.tokens) + count, text.cache.pages
        wanted = max(-(-end // self.page_size) - len(held), 0)
        if count and len(text.tokens) % self.page_size:
            wanted += self.pool.holders(held[-1]) > 1
        free, shared = self.pool.free_pages, [p for p in range(self.num_pages) if self.pool.holders(p) > 1]
        before = self.pool.memory[shared].tobytes()
        numbers = list(itertools.islice(self.count, count))
        try:
            for layer, (key, value) in enumerate(positions(numbers)[:layers]):
                keys, values = text.cache.update(layer, key, value)
                assert keys.flags.c_contiguous
                assert values.flags.c_contiguous
                np.testing.assert_array_equal((keys, values), positions(text.numbers + numbers)[layer])
        except OutOfPages:
            assert wanted > free
            assert (text.cache.pages, self.pool.free_pages) == (held, free)
            return False
        finally:
            assert self.pool.memory[shared].tobytes() == before
        assert self.pool.free_pages == free - wanted
        text.numbers += numbers
        return True

    def keep(self, text: Text, tokens: list[int]) -> None:
        known, full = self.known(tokens), len(tokens) // self.page_size
        assert self.prefixes.insert(tokens, text.cache) == full - len(known)
        for place in range(len(known), full):
            end = (place + 1) * self.page_size
            known.append(tuple(tokens[:end]))
            self.kept[known[-1]] = (text.cache.pages[place], text.numbers[end - self.page_size : end])
        self.use(known)

    @precondition(lambda self: self.texts)
    @rule(data=st.data(), tokens=st.lists(st.integers(0, 1), max_size=5), layers=st.sampled_from([LAYERS, LAYERS, 1]))
    def append(self, data, tokens, layers):
        """Add positions; or only to the first layer, as by an interrupted forward pass, and repair that."""
        text = self.pick(data)
        if self.write(text, len(tokens), layers):
            text.tokens += tokens if layers == LAYERS else []
            text.cache.truncate(text.cache.length)
            del text.numbers[len(text.tokens) :]

    @precondition(lambda self: 0 < len(self.texts) < MOST)
    @rule(data=st.data())
    def fork(self, data):
        text = self.pick(data)
        free = self.pool.free_pages
        self.texts.append(Text(text.cache.fork(), list(text.tokens), list(text.numbers)))
        assert self.pool.free_pages == free

    @precondition(lambda self: self.texts)
    @rule(data=st.data(), how=st.sampled_from(["truncate", "reset", "release", "release"]))
    def forget(self, data, how):
        text = self.pick(data)
        length = data.draw(st.integers(0, len(text.tokens))) if how == "truncate" else 0
        getattr(text.cache, how)(*[length] * (how == "truncate"))
        del text.tokens[length:], text.numbers[length:]
        if how == "release":
            self.texts.remove(text)

    @precondition(lambda self: any(text.tokens for text in self.texts))
    @rule(data=st.data())
    def insert(self, data):
        text = data.draw(st.sampled_from([text for text in self.texts if text.tokens]))
        self.keep(text, text.tokens[: data.draw(st.integers(1, len(text.tokens)))])

    @precondition(lambda self: len(self.texts) < MOST)
    @rule(data=st.data(), tokens=st.lists(st.integers(0, 1), min_size=1, max_size=5), finish=st.booleans())
    def match(self, data, tokens, finish):
        """Begin with what is known of a prompt; perhaps go on with the rest of it, and keep it too."""
        if self.kept and data.draw(st.booleans()):
            tokens = [*data.draw(st.sampled_from(list(self.kept))), *tokens]
        known = self.known(tokens[:-1])
        cache = self.prefixes.match(tokens)
        assert cache.pages == [self.kept[prefix][0] for prefix in known]
        numbers = [number for prefix in known for number in self.kept[prefix][1]]
        self.texts.append(Text(cache, tokens[: len(numbers)], numbers))
        self.use(known)
        if finish and self.write(self.texts[-1], len(tokens) - len(numbers), LAYERS):
            self.texts[-1].tokens = tokens
            self.keep(self.texts[-1], tokens)

    @rule(count=st.integers(0, 3))
    def evict(self, count):
        in_use = {page for text in self.texts for page in text.cache.pages}
        alone = [prefix for prefix, (page, _) in self.kept.items() if page not in in_use]
        free = self.pool.free_pages
        assert self.prefixes.evict(count) == len(alone[:count])
        assert self.pool.free_pages == free + len(alone[:count])
        for victim in alone[:count]:
            self.kept = {prefix: what for prefix, what in self.kept.items() if prefix[: len(victim)] != victim}

    @invariant()
    def every_sequence_holds_what_it_was_given(self):
        for text in self.texts:
            assert holds(text.cache, text.numbers)
            assert len(text.cache.pages) == -(-len(text.tokens) // self.page_size)

    @invariant()
    def every_page_has_as_many_holders_as_hold_it_and_all_others_are_free(self):
        assert self.prefixes.pages == [page for page, _ in self.kept.values()]
        holders = Counter(page for text in self.texts for page in text.cache.pages) + Counter(self.prefixes.pages)
        assert all(self.pool.holders(page) == holders[page] for page in range(self.num_pages))
        assert self.pool.free_pages + len(holders) == self.num_pages

    def teardown(self):
        for text in self.texts:
            text.cache.release()
        assert self.pool.free_pages + len(self.prefixes) == self.num_pages
        self.prefixes.clear()
        assert (self.pool.free_pages, len(self.prefixes)) == (self.num_pages, 0)
        assert sorted(self.pool.allocate(self.num_pages)) == list(range(self.num_pages))


@pytest.mark.parametrize("page_size", [1, 2, 3])
def test_whatever_sequences_and_prefixes_do_no_page_is_lost_and_none_holds_what_it_should_not(page_size):
    machine = type("Machine", (PagesMachine,), {"page_size": page_size})
    run_state_machine_as_test(machine, settings=settings(max_examples=150, stateful_step_count=60))


# One case each


def test_the_least_recently_used_page_goes_first_and_the_end_of_a_prompt_before_its_beginning():
    pool = pool_of(page_size=2)
    prefixes = PrefixCache(pool)
    caches = [PagedKVCache(pool) for _ in range(3)]
    for prompt, cache in zip(([1, 1, 2, 2], [3, 3], [4, 4]), caches, strict=True):
        append(cache, prompt)  # on pages 0 and 1, 2, 3
        prefixes.insert(prompt, cache)
    for cache in caches:
        cache.release()
    prefixes.match([3, 3, 0]).release()
    for left in ([1, 0, 3, 2], [0, 3, 2], [3, 2], [2], []):
        assert prefixes.pages == left
        assert pool.free_pages == 8 - len(left)
        assert prefixes.evict(1) == (1 if left else 0)
    assert prefixes.match([1, 1, 2, 2, 0]).length == 0


def test_pages_in_use_behind_one_that_is_evicted_are_forgotten_and_stay_with_their_sequence():
    pool = pool_of(page_size=2)
    first, second, prefixes = PagedKVCache(pool), PagedKVCache(pool), PrefixCache(pool)
    append(first, [1, 2])
    append(second, [3, 4, 5, 6])
    assert prefixes.insert([7, 7], first) == 1
    assert prefixes.insert([7, 7, 8, 8], second) == 1  # the first page of these tokens is known, and another one
    first.release()
    assert (prefixes.evict(5), len(prefixes), pool.free_pages) == (1, 0, 6)
    assert holds(second, [3, 4, 5, 6])
    assert prefixes.insert([7, 7, 8, 8], second) == 2
    prefixes.clear()
    assert holds(second, [3, 4, 5, 6])
    assert prefixes.match([7, 7, 8]).length == 0


def test_a_prompt_that_is_known_to_its_end_has_a_token_left_to_compute():
    pool = pool_of(page_size=2)
    cache, prefixes = PagedKVCache(pool), PrefixCache(pool)
    append(cache, range(6))
    assert prefixes.insert([1, 2, 3, 4, 5, 6], cache) == 3
    assert [prefixes.match([1, 2, 3, 4, 5, 6][:n]).length for n in range(1, 7)] == [0, 0, 2, 2, 4, 4]


def test_a_page_is_one_piece_of_memory_and_holds_keys_and_values_of_all_layers():
    pool = pool_of(num_pages=3, page_size=4)
    assert pool.memory[1].flags.c_contiguous
    assert pool.keys.shape == pool.values.shape == (3, LAYERS, HEADS, 4, DIM)
    assert np.shares_memory(pool.keys, pool.memory)
    assert pool.nbytes == 3 * pool.page_nbytes == pool.keys.nbytes + pool.values.nbytes
    cache = PagedKVCache(pool)
    append(cache, range(5))
    assert cache.nbytes == 2 * pool.page_nbytes
    assert repr(cache) == "PagedKVCache: 5 positions in 2 pages of 4, 768 bytes"
    np.testing.assert_array_equal(pool.keys[cache.pages[1], :, :, 0], positions([4])[:, 0, 0, :, 0])


def test_layers_may_be_filled_one_by_one_and_forked_in_between():
    pool = pool_of(page_size=2)
    cache = PagedKVCache(pool)
    append(cache, [1])
    new = positions([2, 3, 4])
    cache.update(1, *new[1])
    other = cache.fork()
    cache.update(0, *new[0])
    assert holds(cache, [1, 2, 3, 4])
    assert (other.length, other[0].length, other[1].length) == (1, 1, 4)
    other.truncate(1)
    append(other, [5])
    assert holds(other, [1, 5])
    assert holds(cache, [1, 2, 3, 4])


def test_its_shape_says_how_far_it_can_grow():
    pool = pool_of(num_pages=3, page_size=4)
    cache = PagedKVCache(pool)
    assert (cache.shape, cache[0].shape) == ((LAYERS, 1, HEADS, 12, DIM), (1, HEADS, 12, DIM))
    append(cache, range(5))
    other = cache.fork()  # one of them will have to copy the second page
    assert (cache.shape[3], other.shape[3]) == (8, 8)
    taken = pool.allocate(1)
    assert (cache.shape[3], other.shape[3]) == (5, 5)
    pool.free(taken)
    append(other, range(5, 8))
    append(cache, range(5, 8))
    with pytest.raises(OutOfPages):
        append(cache, [8])
