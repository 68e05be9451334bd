"""Every operation and its derivative as the textbook defines them, in loops over arrays of numbers that count.

A forward gets what the `Function` gets; a backward the gradient, what the `Function` had saved, and which inputs need
a gradient. It returns one for each input, None where the `Function` returns none.
"""

import importlib
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from tinytorch.ops import activation, attention, elementwise, image, linear, loss

n = importlib.import_module("tests.19_profiling.counting_numbers")


class Definition(NamedTuple):
    forward: Callable[..., Any]
    backward: Callable[..., tuple]
    gathers: bool = False  # it reads the elements that it was told to, not arrays as a whole
    hides: bool = False  # both take `skip`: not to look at what the mask hides


# Elementwise


def two(da: Callable, db: Callable) -> Callable[..., tuple]:
    def backward(g, saved, needs):
        derivatives = (da, db)
        return tuple(
            n.summed_to(np.asarray(d(g, *saved), object), np.shape(x)) if need else None
            for d, x, need in zip(derivatives, saved, needs, strict=True)
        )

    return backward


def one(derivative: Callable) -> Callable[..., tuple]:
    return lambda g, saved, needs: (derivative(g, *saved), *[None] * (len(needs) - 1))


def maximum_grad(g, saved, needs):
    a, b = saved
    tie = n.equal(a, b) * 0.5
    return two(lambda *_: g * (n.greater(a, b) + tie), lambda *_: g * (n.greater(b, a) + tie))(g, saved, needs)


def pow_grad(g, x, exponent):
    if exponent == 0:
        return n.zeros(g.shape)
    return g * (exponent * x ** (exponent - 1))


ELEMENTWISE = {
    elementwise.Add: Definition(lambda a, b: a + b, two(lambda g, a, b: g, lambda g, a, b: g)),
    elementwise.Sub: Definition(lambda a, b: a - b, two(lambda g, a, b: g, lambda g, a, b: -g)),
    elementwise.Mul: Definition(lambda a, b: a * b, two(lambda g, a, b: g * b, lambda g, a, b: g * a)),
    elementwise.Div: Definition(lambda a, b: a / b, two(lambda g, a, b: g / b, lambda g, a, b: -g * a / (b * b))),
    elementwise.Maximum: Definition(n.larger, maximum_grad),
    elementwise.Neg: Definition(lambda x: -x, one(lambda g: -g)),
    elementwise.Pow: Definition(lambda x, exponent: x**exponent, one(pow_grad)),
    elementwise.Exp: Definition(n.exp, one(lambda g, y: g * y)),
    elementwise.Log: Definition(n.log, one(lambda g, x: g / x)),
    elementwise.Tanh: Definition(n.tanh, one(lambda g, y: g * (1 - y * y))),
}


# Activations

C, A = math.sqrt(2 / math.pi), 0.044715


def gelu_grad(g, x):
    t = n.tanh(C * (x + A * x * x * x))
    return g * (0.5 * (1 + t) + 0.5 * x * (1 - t * t) * (C * (1 + 3 * A * (x * x))))


def dropout(x, p, rng):
    u = rng.random(x.shape, dtype=np.float32)
    keep = n.greater(np.frompyfunc(n.Number, 1, 1)(u), p) * (1 / (1 - p))
    return x * keep


def softmax_row(row):
    top = n.largest(row)
    e = [n.exp(v - top) for v in row]
    bottom = n.total(e)
    return [v / bottom for v in e]


def softmax_row_grad(g, p):
    mean = n.total(a * b for a, b in zip(g, p, strict=True))
    return [b * (a - mean) for a, b in zip(g, p, strict=True)]


def by_rows(function: Callable) -> Callable[..., np.ndarray]:
    def over(*xs):
        out = np.empty(xs[0].shape, object)
        for at in np.ndindex(out.shape[:-1]):
            out[at] = function(*(x[at] for x in xs))
        return out

    return over


def cross_entropy(logits, targets):
    losses = []
    for row, target in zip(logits, targets, strict=True):
        top = n.largest(row)
        shifted = [v - top for v in row]
        losses.append(n.log(n.total(map(n.exp, shifted))) - shifted[int(target)])
    return n.total(losses) / len(losses)


def cross_entropy_grad(g, saved, needs):
    logits, targets, top, total = saved
    share, out = g / len(targets), np.empty(logits.shape, object)
    for i, j in np.ndindex(logits.shape):
        out[i, j] = n.exp(logits[i, j] - top[i]) / total[i]
    for i, target in enumerate(map(int, targets)):
        out[i, target] = out[i, target] - 1
    return out * share, None


ACTIVATIONS = {
    activation.ReLU: Definition(lambda x: n.larger(x, 0.0), one(lambda g, y: g * n.greater(y, 0))),
    activation.GELU: Definition(lambda x: 0.5 * x * (1 + n.tanh(C * (x + A * x * x * x))), one(gelu_grad)),
    activation.Dropout: Definition(dropout, one(lambda g, keep: g * keep)),
    activation.Softmax: Definition(by_rows(softmax_row), one(by_rows(softmax_row_grad))),
    loss.CrossEntropy: Definition(cross_entropy, cross_entropy_grad),
}


# Products


def matmul(a, b):
    left, right = (a[None] if a.ndim == 1 else a), (b[:, None] if b.ndim == 1 else b)
    batch = np.broadcast_shapes(left.shape[:-2], right.shape[:-2])
    left, right = (np.broadcast_to(m, batch + m.shape[-2:]) for m in (left, right))
    out = np.empty((*batch, left.shape[-2], right.shape[-1]), object)
    for *at, i, j in np.ndindex(out.shape):
        out[*at, i, j] = n.dot(zip(left[*at, i, :], right[*at, :, j], strict=True))
    out = out[..., 0, :] if a.ndim == 1 else out
    return np.asarray(out[..., 0] if b.ndim == 1 else out, object)


def matmul_grad(g, saved, needs):
    a, b = saved
    left, right = (a[None] if a.ndim == 1 else a), (b[:, None] if b.ndim == 1 else b)
    g = g[..., None] if b.ndim == 1 else g
    g = g[..., None, :] if a.ndim == 1 else g
    grads = [None, None]
    if needs[0]:
        grads[0] = n.summed_to(matmul(g, right.swapaxes(-1, -2)), left.shape).reshape(a.shape)
    if needs[1]:
        grads[1] = n.summed_to(matmul(left.swapaxes(-1, -2), g), right.shape).reshape(b.shape)
    return tuple(grads)


def linear_layer(x, weight, bias):
    out = np.empty((*x.shape[:-1], len(weight)), object)
    for *at, i in np.ndindex(out.shape):
        y = n.dot(zip(weight[i], x[*at, :], strict=True))
        out[*at, i] = y if bias is None else y + bias[i]
    return out


def linear_grad(g, saved, needs):
    x, weight = saved
    dx, dw, db = n.zeros(x.shape), n.zeros(weight.shape), n.zeros(weight.shape[:1])
    for *at, i in np.ndindex(g.shape):
        here = g[*at, i]
        for j in range(weight.shape[1]):
            if needs[0]:
                dx[*at, j] = n.dot([(here, weight[i, j])], dx[*at, j])
            if needs[1]:
                dw[i, j] = n.dot([(here, x[*at, j])], dw[i, j])
        if needs[2]:
            db[i] = db[i] + here
    return tuple(grad if need else None for grad, need in zip((dx, dw, db), needs, strict=True))


def padded(x, padding):
    return np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)), constant_values=n.Number(0.0))


def conv2d(x, weight, bias, stride, padding):
    x, (o, _, kh, kw) = padded(x, padding), weight.shape
    out = np.empty((len(x), o, *((s - k) // stride + 1 for s, k in zip(x.shape[2:], (kh, kw), strict=True))), object)
    for image_, c, i, j in np.ndindex(out.shape):
        window = x[image_, :, i * stride : i * stride + kh, j * stride : j * stride + kw]
        y = n.dot(zip(weight[c].flat, window.flat, strict=True))
        out[image_, c, i, j] = y if bias is None else y + bias[c]
    return out


def conv2d_grad(g, saved, needs):
    x, weight, stride, padding = saved
    (h, w), wide = x.shape[2:], padded(x, padding)
    dx, dw, db = n.zeros(wide.shape), n.zeros(weight.shape), n.zeros(weight.shape[:1])
    for image_, o, i, j in np.ndindex(g.shape):
        here = g[image_, o, i, j]
        for c, a, b in np.ndindex(weight.shape[1:]):
            pixel = image_, c, i * stride + a, j * stride + b
            if needs[0]:
                dx[pixel] = n.dot([(here, weight[o, c, a, b])], dx[pixel])
            if needs[1]:
                dw[o, c, a, b] = n.dot([(here, wide[pixel])], dw[o, c, a, b])
        if needs[2]:
            db[o] = db[o] + here
    dx = dx[:, :, padding : padding + h, padding : padding + w]
    return (*(grad if need else None for grad, need in zip((dx, dw, db), needs[:3], strict=True)), None, None)


def attend(q, k, v, is_causal, skip=False):
    out, width = np.empty((*q.shape[:3], v.shape[3]), object), math.sqrt(q.shape[3])
    for *head, i in np.ndindex(q.shape[:3]):
        seen = k.shape[2] - q.shape[2] + i + 1 if is_causal else k.shape[2]
        keys = range(seen if skip else k.shape[2])
        scores = [n.dot(zip(q[*head, i, :], k[*head, j, :], strict=True)) / width for j in keys]
        p = softmax_row([score if j < seen else n.Number(-math.inf) for j, score in enumerate(scores)])
        for c in range(v.shape[3]):
            out[*head, i, c] = n.dot((p[j], v[*head, j, c]) for j in keys)
    return out


def attend_grad(g, saved, needs, skip=False):
    q, k, v, _, kept, is_causal = saved
    p, width = n.plain(kept), math.sqrt(q.shape[3])  # not read: whether a kernel keeps the weights is its own affair
    dq, dk, dv = (n.zeros(x.shape) for x in (q, k, v))
    for *head, i in np.ndindex(q.shape[:3]):
        seen = k.shape[2] - q.shape[2] + i + 1 if is_causal else k.shape[2]
        keys = range(seen if skip else k.shape[2])
        dp = [n.dot(zip(g[*head, i, :], v[*head, j, :], strict=True)) for j in keys]
        for j, ds in enumerate(softmax_row_grad(dp, p[*head, i, : len(keys)])):
            ds = ds / width
            for c in range(v.shape[3]):
                dv[*head, j, c] = n.dot([(p[*head, i, j], g[*head, i, c])], dv[*head, j, c])
            for c in range(q.shape[3]):
                dq[*head, i, c] = n.dot([(ds, k[*head, j, c])], dq[*head, i, c])
                dk[*head, j, c] = n.dot([(ds, q[*head, i, c])], dk[*head, j, c])
    return (dq, dk, dv, None)[: len(needs)]


def heads(qkv, count):
    batch, length, width = qkv.shape
    return qkv.reshape(batch, length, 3, count, width // (3 * count)).transpose(2, 0, 3, 1, 4)


def joined(x):
    return x.transpose(0, 2, 1, 3).reshape(x.shape[0], x.shape[2], -1)


def self_attend_grad(g, saved, needs, skip=False):
    qkv, count, out, kept = saved
    g = g.reshape(*g.shape[:2], count, -1).transpose(0, 2, 1, 3)
    grads = attend_grad(g, (*heads(qkv, count), out, kept, True), (True,) * 3, skip)
    return np.concatenate([joined(x) for x in grads], axis=-1), None


PRODUCTS = {
    linear.MatMul: Definition(matmul, matmul_grad),
    linear.Linear: Definition(linear_layer, linear_grad),
    image.Conv2d: Definition(conv2d, conv2d_grad),
    attention.ScaledDotProductAttention: Definition(attend, attend_grad, hides=True),
    attention.SelfAttention: Definition(
        lambda qkv, count, skip=False: joined(attend(*heads(qkv, count), True, skip)), self_attend_grad, hides=True
    ),
}
