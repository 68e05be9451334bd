"""The ranking is an order that chance does not make, and that one's own worse entries do not change."""

import csv
import io
import itertools
import json
import math
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinytorch.benchmarks.tinymlperf.leaderboard.export import COLUMNS, records, to_csv
from tinytorch.benchmarks.tinymlperf.leaderboard.ranking import (
    OVERALL,
    Entry,
    Ranked,
    best,
    distinguishable,
    overall,
    rank,
    standings,
)
from tinytorch.benchmarks.tinymlperf.scoring import Ratios, score
from tinytorch.profiling.timing.statistics import Estimate

START = datetime(2026, 3, 2, tzinfo=UTC)
TASKS = ["images", "text", "sound"]
numbers = itertools.count()


def estimate(value: float, spread: float = 0.0) -> Estimate:
    return Estimate(value, value / (1 + spread), value * (1 + spread))


def entry(participant="Ada", value=1000.0, spread=0.0, minute=0, task="images", ratios=None, number=None) -> Entry:
    received = START + timedelta(minutes=minute)
    number = next(numbers) if number is None else number
    return Entry(participant, task, estimate(value, spread), 1000.0, received, number, ratios=ratios)


@st.composite
def entry_lists(draw, task=None):
    """Entries of few participants with scores that are often near one another."""
    drawn = draw(
        st.lists(
            st.tuples(
                st.sampled_from("ABCDEFG"),
                st.one_of(st.floats(30, 32_000), st.integers(990, 1030).map(float)),
                st.sampled_from([0.0, 0.001, 0.01, 0.1, 1.0]),
                st.integers(0, 3),
                st.just(task) if task else st.sampled_from(TASKS),
            ),
            max_size=12,
        )
    )
    return [
        entry(*values, ratios=Ratios(estimate(values[1] / 1000, values[2]), 1.0, 1.0, 1.0), number=number)
        for number, values in enumerate(drawn)
    ]


def places(ranked: list[Ranked]) -> dict[str, int]:
    return {one.entry.participant: one.rank for one in ranked}


@given(entry_lists("images"), st.randoms())
def test_the_order_in_which_entries_come_changes_nothing(entries, random):
    shuffled = list(entries)
    random.shuffle(shuffled)
    assert rank(shuffled) == rank(entries)


@given(entry_lists())
def test_the_overall_ranking_does_not_depend_on_the_order_either(entries):
    assert standings(entries[::-1], TASKS) == standings(entries, TASKS)


@given(entry_lists("images"))
def test_each_participant_is_ranked_once_by_the_best_entry(entries):
    highest = {e.participant: max(o.score.value for o in entries if o.participant == e.participant) for e in entries}
    assert {one.entry.participant: one.entry.score.value for one in rank(entries)} == highest


@given(entry_lists("images"))
def test_a_better_score_never_has_a_worse_rank(entries):
    ranked = rank(entries)
    assert [one.rank for one in ranked] == sorted(one.rank for one in ranked)
    scores = [one.entry.score.value for one in ranked]
    assert scores == sorted(scores, reverse=True)


@given(entry_lists("images"))
def test_a_rank_is_shared_with_those_who_cannot_be_told_from_its_leader(entries):
    ranked = rank(entries)
    leaders = [one for place, one in enumerate(ranked, 1) if one.rank == place]
    assert ranked == [] or leaders[0] is ranked[0]
    for one in ranked:
        leader = next(found for found in leaders if found.rank == one.rank)
        assert not distinguishable(leader.entry.score, one.entry.score)
        assert one.tied == (sum(other.rank == one.rank for other in ranked) > 1)
    for above, below in itertools.pairwise(leaders):
        assert distinguishable(above.entry.score, below.entry.score)


@given(entry_lists("images"), st.data())
def test_a_worse_entry_of_ones_own_changes_nothing(entries, data):
    if entries:
        of = data.draw(st.sampled_from(best(entries)))
        worse = data.draw(st.floats(1e-3, 1.0, exclude_max=True)) * of.score.value
        added = entry(of.participant, worse, 0.5, minute=9)
        assert rank([*entries, added]) == rank(entries)


@given(entry_lists("images"), st.floats(1, 40_000), st.sampled_from([0.0, 0.01, 0.5]))
def test_who_joins_changes_no_rank_above_and_lifts_nobody_there(entries, value, spread):
    before, after = rank(entries), places(rank([*entries, entry("new", value, spread, minute=9)]))
    for one in before:
        if one.entry.score.value >= value:
            assert after[one.entry.participant] == one.rank


@given(st.floats(1, 1e4), st.floats(1, 1e4), st.floats(0, 0.5), st.floats(0, 0.5))
def test_scores_are_told_apart_only_beyond_accident_and_one_percent(a, b, spread_a, spread_b):
    high, low = max(a, b), min(a, b)
    told = distinguishable(estimate(high, spread_a), estimate(low, spread_b))
    accident = math.hypot(math.log1p(spread_a), math.log1p(spread_b))
    ratio = math.log(high / low)
    if abs(ratio - accident) > 1e-9 and abs(ratio - math.log(1.01)) > 1e-9:
        assert told == (ratio > accident and ratio > math.log(1.01))


def test_ranks_after_a_tie_are_skipped():
    entries = [entry("Ada", 1005), entry("Bob", 1000), entry("Cleo", 900)]
    assert [(one.rank, one.tied) for one in rank(entries)] == [(1, True), (1, True), (3, False)]


def test_a_chain_of_small_steps_is_no_single_rank():
    """Each is 0.8 % below the one before: neighbours cannot be told apart, the ends can."""
    entries = [entry(name, 1000 * 0.992**step) for step, name in enumerate("ABCD")]
    assert [one.rank for one in rank(entries)] == [1, 1, 3, 3]


def test_of_equal_scores_the_earlier_stands_first():
    entries = [entry("Late", minute=2), entry("Early", minute=1), entry("Last", minute=2)]
    assert [one.entry.participant for one in rank(entries)] == ["Early", "Late", "Last"]


def test_scores_of_several_tasks_have_no_order():
    with pytest.raises(ValueError, match="scores of several tasks have no order: images, text"):
        rank([entry("Ada"), entry("Bob", task="text")])


def test_the_overall_score_is_that_of_the_best_entries_and_a_missing_task_is_at_the_floor():
    slow, fast, text = (Ratios(estimate(x, 0.01), 2.0, 1.0, 1.0) for x in (2.0, 8.0, 4.0))
    entries = [
        entry("Ada", 1000, ratios=slow, minute=1),
        entry("Ada", 2000, ratios=fast, minute=2),
        entry("Ada", 1500, ratios=text, task="text", minute=3, number=77),
    ]
    (found,) = overall(entries, TASKS)
    expected = score({"images": fast, "text": text}, TASKS)
    assert (found.task, found.score, found.deterministic) == (OVERALL, expected.score, expected.deterministic)
    assert (found.received, found.submission) == (START + timedelta(minutes=3), 77)
    assert not found.passed


@given(entry_lists())
def test_csv_and_json_hold_the_ranking(entries):
    for ranked in standings(entries, TASKS).values():
        rows = list(csv.DictReader(io.StringIO(to_csv(ranked), newline="")))
        objects = json.loads(json.dumps(records(ranked)))
        assert [tuple(row) for row in rows] == [tuple(one) for one in objects] == [COLUMNS] * len(ranked)
        assert [(int(row["rank"]), row["participant"]) for row in rows] == [
            (o["rank"], o["participant"]) for o in objects
        ]
        assert [float(row["score"]) for row in rows] == [one.entry.score.value for one in ranked]


@given(st.text(max_size=20))
def test_no_cell_of_the_csv_is_a_formula(name):
    text = to_csv(rank([entry(name)]))
    (row,) = list(csv.DictReader(io.StringIO(text, newline="")))
    assert not row["participant"].startswith(("=", "+", "-", "@", "\t", "\r", "\n"))
    assert row["participant"].removeprefix("'") == name.removeprefix("'")
