"""No optimisation costs more than it may: each row of the table, from the weights that ship, as it is run."""

from dataclasses import replace

import pytest

from tests.integration import accuracy, checks
from tests.integration.optimisations import CNN, GPT, MEMORIES
from tinytorch import zoo

LABELS = [f"{row.model}: {', then '.join(row.optimisation)}: {row.words}" for row in accuracy.ROWS]


@pytest.mark.parametrize("row", accuracy.ROWS, ids=LABELS)
def test_a_row_of_the_table_loses_no_more_than_it_may(row):
    found = accuracy.measured(row)
    assert found.lost <= row.allowed, f"{found.before:.4f} became {found.after:.4f}: {row.reason}"


def test_every_optimisation_has_a_row():
    assert accuracy.covered() == {"cnn": set(CNN), "gpt": set(GPT) | set(MEMORIES)}


def test_a_table_that_lacks_an_optimisation_is_noticed(monkeypatch):
    left = tuple(row for row in accuracy.ROWS if "window" not in row.optimisation)
    monkeypatch.setattr(accuracy, "ROWS", left)
    assert accuracy.covered() != {"cnn": set(CNN), "gpt": set(GPT) | set(MEMORIES)}


def test_what_is_compared_with_is_what_the_cards_say():
    known = zoo.read_card("reference_cnn")["rows"]["accuracy"]["value"]
    assert accuracy.before("cnn") == pytest.approx(known, abs=0.05)
    assert len(checks.public("cnn")) == 10_000


def test_too_great_a_loss_is_noticed():
    """A model that was pruned too much, and not trained on."""
    row = replace(
        accuracy.ROWS[6], make=lambda: accuracy.plan(accuracy.optimisations.pruned(0.9, accuracy.reference("cnn")))
    )
    assert accuracy.measured(row).lost > row.allowed
