"""Modules: the tree, its state, and what the layers refuse."""

import numpy as np
import pytest

from tinytorch import Tensor, nn
from tinytorch.nn.functional import cross_entropy, scaled_dot_product_attention
from tinytorch.zoo import reference_cnn


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def zeros(*shape: int, grad: bool = False) -> Tensor:
    return Tensor(np.zeros(shape, np.float32), requires_grad=grad)


class Model(nn.Module):
    """A module in an attribute, two in a list, a parameter of its own, a buffer, and things that are none of these."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(np.ones(1, np.float32))
        self.first = nn.Linear(4, 3, rng=rng())
        self.layers = [nn.Sequential(nn.Linear(3, 3, bias=False, rng=rng()), nn.ReLU()), nn.LayerNorm(3)]
        self.names, self.constant = ["a", "b"], Tensor([1.0])
        self.register_buffer("count", np.zeros(2, np.float32))

    def forward(self, x: Tensor) -> Tensor:
        for layer in (self.first, *self.layers):
            x = layer(x)
        return x * self.scale


# The tree


def test_paths_follow_the_order_of_assignment():
    model = Model()
    names = ["scale", "first.weight", "first.bias", "layers.0.0.weight", "layers.1.weight", "layers.1.bias"]
    assert [name for name, _ in model.named_parameters()] == names
    assert [name for name, _ in model.named_modules()] == [
        "", "first", "layers.0", "layers.0.0", "layers.0.1", "layers.1",
    ]  # fmt: skip
    assert list(model.state_dict()) == [*names, "count"]
    assert model.num_parameters() == 1 + 15 + 9 + 6


def test_a_shared_parameter_is_listed_once_and_gets_both_gradients():
    model = nn.Sequential(nn.Linear(3, 3, rng=rng()), nn.Linear(3, 3, rng=rng()))
    model[1].weight = model[0].weight
    assert [name for name, _ in model.named_parameters()] == ["0.weight", "0.bias", "1.bias"]
    x = Tensor(rng().standard_normal((2, 3)).astype(np.float32))
    model(x).sum().backward()
    hidden = model[0](x).data
    upstream = np.ones((2, 3), np.float32)
    expected = upstream.T @ hidden + (upstream @ model[0].weight.data).T @ x.data
    np.testing.assert_allclose(model[0].weight.grad.data, expected, rtol=1e-5, atol=1e-6)


def test_train_and_eval_reach_every_module_and_return_the_model():
    model = Model()
    assert all(m.training for m in model.modules())
    assert model.eval() is model
    assert not any(m.training for m in model.modules())
    assert model.train() is model
    assert all(m.training for m in model.modules())


def test_zero_grad_forgets_every_gradient():
    model = Model()
    model(Tensor(rng().standard_normal((2, 4)).astype(np.float32))).sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    model.zero_grad()
    assert all(p.grad is None for p in model.parameters())


def test_repr_shows_the_tree_with_sizes():
    assert repr(nn.Sequential(nn.Linear(2, 3), nn.Sequential(nn.Dropout(0.1)))) == (
        "Sequential(\n"
        "  (0): Linear(in_features=2, out_features=3, bias=True)\n"
        "  (1): Sequential(\n"
        "    (0): Dropout(p=0.1)\n"
        "  )\n"
        ")"
    )
    assert repr(nn.Conv2d(1, 2, 3)) == "Conv2d(1, 2, kernel_size=3, stride=1, padding=0, bias=True)"
    assert repr(nn.MaxPool2d(2)) == "MaxPool2d(kernel_size=2, stride=2)"


def test_sequential_counts_iterates_and_indexes_its_layers():
    layers = [nn.ReLU(), nn.GELU(), nn.Flatten()]
    model = nn.Sequential(*layers)
    assert len(model) == 3
    assert list(model) == layers
    assert model[-1] is layers[-1]
    with pytest.raises(IndexError):
        model[3]


def test_a_module_without_forward_says_so():
    with pytest.raises(NotImplementedError, match="Module has no forward"):
        nn.Module()(1)


def test_equal_generators_give_equal_weights():
    a, b = (reference_cnn(rng()).state_dict() for _ in range(2))
    assert all((a[name] == b[name]).all() for name in a)
    assert not (nn.Linear(3, 3, rng=rng()).weight.data == nn.Linear(3, 3).weight.data).all()


# The state


def test_a_state_round_trips_and_is_copied_in():
    source, target = reference_cnn(rng()), reference_cnn(np.random.default_rng(1))
    source(Tensor(rng().random((2, 1, 28, 28), np.float32)))  # moves the running statistics
    state = source.state_dict()
    target.load_state_dict(state)
    for name, array in target.state_dict().items():
        np.testing.assert_array_equal(array, state[name])
        assert not np.shares_memory(array, state[name])
    x = Tensor(rng().random((2, 1, 28, 28), np.float32))
    np.testing.assert_array_equal(source.eval()(x).data, target.eval()(x).data)


def without(name):
    return lambda state: state.pop(name)


BROKEN_STATES = {
    "missing": (without("first.bias"), KeyError, r"missing \['first.bias'\]"),
    "missing buffer": (without("count"), KeyError, r"missing \['count'\]"),
    "unexpected": (lambda s: s.update(other=s["count"]), KeyError, r"unexpected \['other'\]"),
    "shape": (lambda s: s.update({"layers.1.bias": np.ones(4)}), ValueError, r"layers.1.bias.*\(3,\).*\(4,\)"),
    "shape that broadcasts": (lambda s: s.update(count=np.ones(1)), ValueError, r"count.*\(2,\).*\(1,\)"),
}


@pytest.mark.parametrize(("damage", "error", "message"), BROKEN_STATES.values(), ids=BROKEN_STATES)
def test_a_state_that_does_not_fit_names_the_paths_and_changes_nothing(damage, error, message):
    model = Model()
    before = {name: array.copy() for name, array in model.state_dict().items()}
    state = {name: array + 1 for name, array in before.items()}
    damage(state)
    with pytest.raises(error, match=message):
        model.load_state_dict(state)
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


# Layers


def test_dropout_keeps_the_expectation_in_training_and_does_nothing_in_evaluation():
    x = Tensor(np.full((400, 500), 3.0, np.float32))
    layer = nn.Dropout(0.3, rng=rng())
    y = layer(x).data
    kept = y != 0
    assert kept.mean() == pytest.approx(0.7, abs=0.005)  # 200,000 draws: a standard deviation is 0.001
    np.testing.assert_allclose(y[kept], 3.0 / 0.7, rtol=1e-6)
    assert y.mean() == pytest.approx(3.0, abs=0.03)
    assert not (layer(x).data == y).all()
    assert layer.eval()(x) is x
    assert nn.Dropout(0.0)(x) is x
    assert not nn.Dropout(1.0, rng=rng())(x).data.any()


@pytest.mark.parametrize("p", [-0.1, 1.1, float("nan")])
def test_dropout_refuses_what_is_no_probability(p):
    with pytest.raises(ValueError, match=str(p)):
        nn.Dropout(p)


def test_max_pooling_spreads_nan_and_average_pooling_too():
    """A layer that hid a NaN would hide the bug that made it."""
    x = np.zeros((1, 1, 4, 4), np.float32)
    x[0, 0, 1, 1] = np.nan
    for layer in (nn.MaxPool2d(2), nn.AvgPool2d(2)):
        assert np.isnan(layer(Tensor(x)).data).tolist() == [[[[True, False], [False, False]]]]


def test_batch_norm_in_evaluation_is_of_each_image_alone():
    layer = nn.BatchNorm2d(3).eval()
    layer.running_mean[...], layer.running_var[...] = [1, 2, 3], [4, 5, 6]
    x = rng().random((5, 3, 2, 2), np.float32)
    together = layer(Tensor(x)).data
    for i in range(5):
        np.testing.assert_array_equal(layer(Tensor(x[i : i + 1])).data[0], together[i])
    np.testing.assert_array_equal(layer.running_mean, [1, 2, 3])


LAYERS = {
    "Linear": (lambda: nn.Linear(4, 2), (4,)),
    "Conv2d": (lambda: nn.Conv2d(3, 2, 3, padding=1), (3, 5, 5)),
    "MaxPool2d": (lambda: nn.MaxPool2d(2), (3, 4, 4)),
    "AvgPool2d": (lambda: nn.AvgPool2d(2), (3, 4, 4)),
    "BatchNorm2d in evaluation": (lambda: nn.BatchNorm2d(3).eval(), (3, 4, 4)),
    "LayerNorm": (lambda: nn.LayerNorm(4), (4,)),
    "Dropout": (lambda: nn.Dropout(0.5), (4,)),
    "Flatten": (lambda: nn.Flatten(), (3, 4, 4)),
    "ReLU": (lambda: nn.ReLU(), (4,)),
    "GELU": (lambda: nn.GELU(), (4,)),
    "MultiHeadAttention": (lambda: nn.MultiHeadAttention(4, 2), (5, 4)),
    "TransformerBlock": (lambda: nn.TransformerBlock(4, 2), (5, 4)),
    "the reference CNN": (lambda: reference_cnn().eval(), (1, 28, 28)),
}


@pytest.mark.parametrize(("make", "shape"), LAYERS.values(), ids=LAYERS)
def test_a_batch_of_nothing_gives_a_batch_of_nothing_and_zero_gradients(make, shape):
    layer, x = make(), zeros(0, *shape, grad=True)
    one = layer(zeros(1, *shape))
    out = layer(x)
    assert out.shape == (0, *one.shape[1:])
    out.sum().backward()
    assert x.grad.shape == x.shape
    assert not any(p.grad.data.any() for p in layer.parameters())


def test_batch_norm_refuses_to_learn_from_nothing():
    """The mean of no image is NaN: one empty batch would ruin the running statistics for good."""
    layer = nn.BatchNorm2d(3)
    with pytest.raises(ValueError, match=r"\(0, 3, 2, 2\)"):
        layer(zeros(0, 3, 2, 2))
    np.testing.assert_array_equal(layer.running_mean, np.zeros(3))
    np.testing.assert_array_equal(layer.running_var, np.ones(3))


# What is refused: each message names what was wanted and what came
REFUSED = {
    "Linear": (r"4 features.*\(2, 3\)", lambda: nn.Linear(4, 2)(zeros(2, 3))),
    "Linear of a number": (r"4 features.*\(\)", lambda: nn.Linear(4, 2)(Tensor(1.0))),
    "LayerNorm": (r"4 elements.*\(2, 3\)", lambda: nn.LayerNorm(4)(zeros(2, 3))),
    "BatchNorm2d": (r"\(N, 3, H, W\).*\(2, 4, 5, 5\)", lambda: nn.BatchNorm2d(3)(zeros(2, 4, 5, 5))),
    "BatchNorm2d axes": (r"\(N, 3, H, W\).*\(2, 3\)", lambda: nn.BatchNorm2d(3)(zeros(2, 3))),
    "Conv2d channels": (r"3 channels.*\(2, 4, 5, 5\)", lambda: nn.Conv2d(3, 2, 3)(zeros(2, 4, 5, 5))),
    "Conv2d axes": (r"\(N, C, H, W\).*\(3, 5, 5\)", lambda: nn.Conv2d(3, 2, 3)(zeros(3, 5, 5))),
    "Conv2d window": (r"3 x 3 .*\(1, 3, 2, 5\)", lambda: nn.Conv2d(3, 2, 3)(zeros(1, 3, 2, 5))),
    "MaxPool2d window": (r"MaxPool2d.*3 x 3 .*\(1, 3, 5, 2\)", lambda: nn.MaxPool2d(3)(zeros(1, 3, 5, 2))),
    "AvgPool2d axes": (r"AvgPool2d.*\(3, 5, 2\)", lambda: nn.AvgPool2d(3)(zeros(3, 5, 2))),
    "MultiHeadAttention": (r"\(B, T, 8\).*\(1, 2, 4\)", lambda: nn.MultiHeadAttention(8, 2)(zeros(1, 2, 4))),
    "heads": ("10.*3", lambda: nn.MultiHeadAttention(10, 3)),
    "no heads": ("8.*0", lambda: nn.MultiHeadAttention(8, 0)),
    "cross_entropy shapes": (r"\(2, 3\).*\(2,\).*\(3,\)", lambda: cross_entropy(zeros(2, 3), np.zeros(3, int))),
    "cross_entropy class": (r"0 \.\.\. 2", lambda: cross_entropy(zeros(2, 3), np.array([0, 3]))),
    "cross_entropy negative": (r"0 \.\.\. 2", lambda: cross_entropy(zeros(2, 3), np.array([0, -1]))),
    "cross_entropy floats": (r"0 \.\.\. 2", lambda: cross_entropy(zeros(2, 3), np.zeros(2))),
    "cross_entropy of nothing": ("at least one", lambda: cross_entropy(zeros(0, 3), np.zeros(0, int))),
    "causal attention of more queries than keys": (
        r"3.*2",
        lambda: scaled_dot_product_attention(zeros(1, 1, 3, 2), zeros(1, 1, 2, 2), zeros(1, 1, 2, 2), is_causal=True),
    ),
    "attention to nothing": (
        "2 queries to 0 keys",
        lambda: scaled_dot_product_attention(zeros(1, 1, 2, 2), zeros(1, 1, 0, 2), zeros(1, 1, 0, 2)),
    ),
    "attention of other depths": (
        r"\(1, 1, 3, 2\), \(1, 1, 3, 4\)",
        lambda: scaled_dot_product_attention(zeros(1, 1, 3, 2), zeros(1, 1, 3, 4), zeros(1, 1, 3, 2)),
    ),
    "attention of fewer values": (
        r"\(1, 1, 3, 2\) and \(1, 1, 2, 2\)",
        lambda: scaled_dot_product_attention(zeros(1, 1, 3, 2), zeros(1, 1, 3, 2), zeros(1, 1, 2, 2)),
    ),
    "attention of other heads": (
        r"\(1, 2, 3, 2\), \(1, 1, 3, 2\)",
        lambda: scaled_dot_product_attention(zeros(1, 2, 3, 2), zeros(1, 1, 3, 2), zeros(1, 1, 3, 2)),
    ),
    "attention without heads": (
        r"\(B, H, Tq, d\).*\(3, 2\)",
        lambda: scaled_dot_product_attention(zeros(3, 2), zeros(3, 2), zeros(3, 2)),
    ),
    "Linear of no features": ("0 inputs", lambda: nn.Linear(0, 2)),
    "Conv2d of no channels": ("0 inputs", lambda: nn.Conv2d(0, 2, 3)),
}


@pytest.mark.parametrize(("message", "call"), REFUSED.values(), ids=REFUSED)
def test_wrong_shapes_are_value_errors_that_name_both(message, call):
    with pytest.raises(ValueError, match=message):
        call()


def test_embedding_refuses_ids_outside_of_its_table_and_numbers_that_are_no_ids():
    table = nn.Embedding(5, 2, rng=rng())
    for bad in (5, -1):
        with pytest.raises(IndexError, match=rf"id {bad} .*0 \.\.\. 4"):
            table(np.array([0, bad]))
    with pytest.raises(TypeError, match="float64"):
        table(np.array([0.0]))
    np.testing.assert_array_equal(table(Tensor([[1, 4]])).data, table.weight.data[[[1, 4]]])
