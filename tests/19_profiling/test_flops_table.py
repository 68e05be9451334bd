"""How the counter shows what it counted: a row for each module."""

import numpy as np

from tinytorch import Tensor, nn
from tinytorch.profiling.flops.counter import OUTSIDE, FLOPCounter

rng = np.random.default_rng(0)


def mlp() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 4, rng=rng), nn.ReLU(), nn.Linear(4, 2, rng=rng))


def batch() -> Tensor:
    return Tensor(np.ones((5, 3), np.float32))


def test_the_table_has_a_row_for_each_module_down_to_a_depth():
    model = nn.GPT(11, 8, 2, 2, 6, rng=rng)
    with FLOPCounter(model) as counter:
        model(np.zeros((1, 4), np.int64)).sum()
    depths = {
        depth: [row[0] for row in counter.table(depth).rows if row[0] not in ("the model", OUTSIDE, "all")]
        for depth in (0, 1, 2, None)
    }
    assert depths[0] == []
    assert depths[1] == ["token_embedding", "position_embedding", "blocks.0", "blocks.1", "norm", "head"]
    assert "blocks.0.mlp" in depths[2]
    assert "blocks.0.mlp.0" not in depths[2]
    assert depths[None] == [path for path, _ in model.named_modules() if path]
    assert counter.table(0).rows[-1] == counter.table().rows[-1]


def test_rows_stand_in_the_order_of_the_model_also_of_one_that_is_only_called_in_parts():
    model = mlp()
    with FLOPCounter(model) as counter:
        model[2](model[1](model[0](batch())))
        nn.ReLU()(model[0](batch()).exp())
    rows = [row[0] for row in counter.table().rows]
    assert rows == ["the model", "0", "1", "2", "ReLU", OUTSIDE, "all"]
    with FLOPCounter(model) as counter:
        model[2](Tensor(np.ones((5, 4), np.float32)))
        model[0](batch())
    assert list(counter.by_module()) == ["", "0", "2"]


def test_the_table_as_text_and_html():
    model = mlp()
    with FLOPCounter(model) as counter:
        model(batch()).sum().backward()
    assert str(counter).splitlines() == [
        "Work by module",
        "module              class       calls  MACs  FLOPs  forward  backward     bytes  counted",
        "the model           Sequential      1   240    600      250       350  1.21 KiB   6 of 6",
        "0                   Linear          1   120    280      140       140     408 B   2 of 2",
        "1                   ReLU            1     0     60       20        40     400 B   2 of 2",
        "2                   Linear          1   120    260       90       170     432 B   2 of 2",
        "outside of modules                        0     10       10         0      44 B   2 of 2",
        "all                                     240    610      260       350  1.25 KiB   8 of 8",
        "1 MAC is 2 FLOPs.",
    ]
    html = counter._repr_html_()
    assert html.count("<tr>") == 7
    assert "1.25 KiB" in html


def test_modules_outside_of_the_model_have_rows_by_their_class():
    with FLOPCounter(mlp()) as counter:
        nn.Sequential(nn.ReLU())(batch())
    assert list(counter.by_module()) == ["Sequential", "Sequential.0"]
    assert [row[0] for row in counter.table(depth=0).rows] == ["Sequential", "all"]


def test_an_empty_block_gives_an_empty_table():
    with FLOPCounter() as counter:
        pass
    assert [row[0] for row in counter.table().rows] == ["all"]
    assert "0 of 0" in str(counter)
