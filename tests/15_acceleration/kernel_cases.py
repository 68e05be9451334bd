"""Arguments for every kernel, drawn so that all edges occur: for the tests of where compiled code reads and writes.

A case is called with Hypothesis' `draw` and with `array(*shape)`, which makes an argument; `values=` says what it
holds, `positive=True` that its numbers are, and `written=True` that the kernel writes to it.
"""

import numpy as np
from hypothesis import strategies as st

from tinytorch.kernels import (
    activation,
    attention,
    conv,
    decoding,
    dynamic,
    int8_attention,
    matmul,
    normalization,
    pool,
    softmax,
    sparse,
    update,
)

sides = st.integers(0, 6)
widths = st.sampled_from([1, 2, 15, 16, 17, 33])


def matmul_case(draw, array):
    m, k, n = draw(st.tuples(sides, sides, sides) | st.tuples(*[st.sampled_from([1, 15, 16, 33, 70])] * 3))
    batch = draw(st.sampled_from([(), (), (2,)]))
    return array(*batch, m, k), array(k, n)


def linear_case(draw, array):
    rows, n_in, n_out = draw(st.tuples(sides, sides, sides) | st.tuples(*[st.sampled_from([1, 15, 16, 33, 70])] * 3))
    return array(rows, n_in), array(n_out, n_in), draw(st.sampled_from([None, array(n_out)]))


def convolution(draw):
    """Return the shapes of image, weight and result, stride and padding."""
    n, c, o = draw(st.integers(0, 2)), draw(st.integers(1, 3)), draw(st.sampled_from([1, 2, 16, 17]))
    stride, padding = draw(st.integers(1, 5)), draw(st.integers(0, 3))
    h, w = draw(st.tuples(*[st.integers(1, 6)] * 2))
    kernel = tuple(draw(st.integers(1, min(4, side + 2 * padding))) for side in (h, w))
    ho, wo = (conv.output_size(a, k, stride, padding) for a, k in zip((h, w), kernel, strict=True))
    return (n, c, h, w), (o, c, *kernel), (n, o, ho, wo), stride, padding


def conv2d_case(draw, array):
    x, weight, _, stride, padding = convolution(draw)
    return array(*x), array(*weight), draw(st.sampled_from([None, array(weight[0])])), stride, padding


def conv2d_input_grad_case(draw, array):
    x, weight, y, stride, padding = convolution(draw)
    return array(*y), array(*weight), x, stride, padding


def conv2d_weight_grad_case(draw, array):
    x, weight, y, stride, padding = convolution(draw)
    return array(*y), array(*x), weight[2:], stride, padding


def pooling(draw):
    """Return the shapes of image and result, window and stride."""
    n, c, stride = draw(st.integers(0, 2)), draw(st.sampled_from([1, 3, 16, 17])), draw(st.integers(1, 4))
    h, w = draw(st.tuples(*[st.integers(1, 6)] * 2))
    kernel = draw(st.integers(1, min(h, w)))
    return (n, c, h, w), (n, c, *(conv.output_size(a, kernel, stride, 0) for a in (h, w))), kernel, stride


def max_pool2d_grad_case(draw, array):
    x, y, kernel, stride = pooling(draw)
    image = array(*x)
    return array(*y), image, array(*y, values=pool.max_pool2d.version("numpy")(image, kernel, stride)), kernel, stride


def pool_case(draw, array):
    x, _, kernel, stride = pooling(draw)
    return array(*x), kernel, stride


def avg_pool2d_grad_case(draw, array):
    x, y, kernel, stride = pooling(draw)
    return array(*y), x, kernel, stride


def rows(draw):
    """Return the shape of rows to work on, of one number at least."""
    return (*draw(st.sampled_from([(), (0,), (3,), (2, 3)])), draw(widths))


def twice(shape, array):
    return array(*shape), array(*shape)


def cross_entropy_case(draw, array):
    n, classes = draw(sides), draw(widths)
    return array(n, classes), np.arange(2 * n, dtype=draw(st.sampled_from([np.int64, np.uint8])))[::2] % classes


def cross_entropy_grad_case(draw, array):
    logits, targets = cross_entropy_case(draw, array)
    n = len(targets)
    return array(n), logits, targets, array(n), array(n, positive=True)


def layer_norm_case(draw, array):
    shape = rows(draw)
    return array(*shape), array(shape[-1]), array(shape[-1]), 0.1


def layer_norm_grad_case(draw, array):
    shape = rows(draw)
    return *twice(shape, array), array(shape[-1]), array(*shape[:-1]), array(*shape[:-1], positive=True)


def channels(draw):
    """Return the shape of some images, and of one number for each channel."""
    c = draw(widths)
    return (draw(st.integers(1, 2)), c, *draw(st.tuples(*[st.integers(1, 5)] * 2))), (c,)


def batch_norm_case(draw, array):
    x, c = channels(draw)
    return array(*x), array(*c), array(*c), 0.1


def batch_norm_grad_case(draw, array):
    x, c = channels(draw)
    return *twice(x, array), array(*c), array(*c), array(*c, positive=True)


def batch_norm_weight_grad_case(draw, array):
    grad, x, _, mean, inv_std = batch_norm_grad_case(draw, array)
    return grad, x, mean, inv_std


def scale_shift_case(draw, array):
    x, c = channels(draw)
    return array(*x), array(*c), array(*c), draw(st.booleans())


def attention_case(draw, array):
    lead = draw(st.sampled_from([(1, 1), (2, 3), (0, 2)]))
    queries, more = draw(st.sampled_from([1, 2, 9, 17, 33])), draw(st.sampled_from([0, 1, 16]))
    q, k = (array(*lead, n, draw(st.shared(widths, key="depth"))) for n in (queries, queries + more))
    return q, k, array(*lead, queries + more, draw(widths)), draw(st.booleans())


def attention_grad_case(draw, array):
    q, k, v, is_causal = attention_case(draw, array)
    out, kept = attention.attention.version("naive")(q, k, v, is_causal)
    grads = (array(*x.shape, written=True) for x in (q, k, v))
    return array(*out.shape), q, k, v, array(*out.shape, values=out), array(*kept.shape, values=kept), is_causal, *grads


def kept(weight):
    """Return a weight without every third number."""
    weight = np.array(weight)
    weight.reshape(-1)[::3] = 0
    rows = sparse.Rows.from_dense(weight)
    return decoding.Kept(rows.values, rows.indices, rows.indptr, sparse.Product(rows))


def decoder_step_case(draw, array):
    shared, group = draw(st.sampled_from([(1, 1), (2, 1), (1, 2)]))
    depth, wide, batch = draw(widths), draw(widths), draw(st.sampled_from([0, 1, 4, 5]))
    heads, past = shared * group, draw(st.integers(0, 2))
    width, rows = heads * depth, (heads + 2 * shared) * depth
    sizes = (width,), (width,), (rows, width), (rows,), (width, width), (width,)
    sizes += (width,), (width,), (wide, width), (wide,), (width, wide), (width,)
    layers, vocab = draw(st.integers(1, 2)), draw(widths)

    def weight(*size):
        return kept(array(*size)) if len(size) == 2 and draw(st.booleans()) else array(*size)

    blocks = tuple(decoding.BlockWeights(*(weight(*size) for size in sizes)) for _ in range(layers))
    ends = array(past + 1, width), array(width), array(width), weight(vocab, width)
    weights = decoding.DecoderWeights(blocks, *ends)
    length, rng = past + draw(st.integers(1, 2)), np.random.default_rng(draw(st.integers(0, 9)))
    caches = (array(layers, batch, shared, length, depth, written=True) for _ in range(2))
    ids, starts = rng.integers(0, vocab, batch), rng.integers(0, past + 1, batch)
    return array(vocab, width), ids, weights, *caches, heads, past, starts, 1.0


def attend_codes_case(draw, array):
    shared, group, batch, keys = (draw(st.integers(1, 2)) for _ in range(4))
    keys, depth = draw(st.sampled_from([keys, 17, 65])), draw(widths)
    codes = np.random.default_rng(keys).integers(-9, 10, (2, batch, shared, keys, depth)).astype(np.int8)
    scales = (array(batch, keys, positive=True) for _ in range(2))
    q = array(batch, shared * group, depth)
    return q, codes[0], next(scales), codes[1], next(scales)


def dynamic_linear_case(draw, array):
    n_in, n_out = draw(st.tuples(*[st.sampled_from([1, 3, 16, 33, 70])] * 2))
    weight = np.random.default_rng(n_in).integers(-127, 128, (n_out, n_in)).astype(np.int8)
    product = dynamic.Product(weight, np.full(n_out, 0.01, np.float32))
    return array(draw(sides), n_in), product, draw(st.sampled_from([None, array(n_out)]))


def sgd_update_case(draw, array):
    shape = rows(draw)
    p, velocity = array(*shape, written=True), array(*shape, written=True)
    return p, array(*shape), velocity, 0.5, draw(st.sampled_from([0.0, 0.5])), draw(st.sampled_from([0.0, 0.25]))


def adamw_update_case(draw, array):
    shape = rows(draw)
    p, mean, square = (
        array(*shape, written=True),
        array(*shape, written=True),
        array(*shape, written=True, positive=True),
    )
    return p, array(*shape), mean, square, 0.5, (0.5, 0.75), 1e-3, draw(st.sampled_from([0.0, 0.25])), 3


CASES = {
    decoding.decoder_step: decoder_step_case,
    int8_attention.attend_codes: attend_codes_case,
    dynamic.dynamic_linear: dynamic_linear_case,
    matmul.matmul: matmul_case,
    matmul.linear: linear_case,
    conv.conv2d: conv2d_case,
    conv.conv2d_input_grad: conv2d_input_grad_case,
    conv.conv2d_weight_grad: conv2d_weight_grad_case,
    conv.conv2d_bias_grad: lambda draw, array: (array(*convolution(draw)[2]),),
    pool.max_pool2d: pool_case,
    pool.max_pool2d_grad: max_pool2d_grad_case,
    pool.avg_pool2d: pool_case,
    pool.avg_pool2d_grad: avg_pool2d_grad_case,
    softmax.softmax: lambda draw, array: (array(*rows(draw)),),
    softmax.softmax_grad: lambda draw, array: twice(rows(draw), array),
    softmax.log_softmax: lambda draw, array: (array(*rows(draw)),),
    softmax.cross_entropy: cross_entropy_case,
    softmax.cross_entropy_grad: cross_entropy_grad_case,
    activation.relu: lambda draw, array: (array(*draw(st.sampled_from([(), (0, 3), (33,), (2, 3, 4, 5)]))),),
    activation.relu_grad: lambda draw, array: twice(rows(draw), array),
    activation.gelu: lambda draw, array: (array(*draw(st.sampled_from([(), (0, 3), (33,), (2, 3, 4, 5)]))),),
    activation.gelu_grad: lambda draw, array: twice(rows(draw), array),
    normalization.layer_norm: layer_norm_case,
    normalization.layer_norm_grad: layer_norm_grad_case,
    normalization.batch_norm: batch_norm_case,
    normalization.batch_norm_grad: batch_norm_grad_case,
    normalization.batch_norm_weight_grad: batch_norm_weight_grad_case,
    normalization.scale_shift: scale_shift_case,
    attention.attention: attention_case,
    attention.attention_grad: attention_grad_case,
    update.sgd_update: sgd_update_case,
    update.adamw_update: adamw_update_case,
    update.square_sum: lambda draw, array: (array(*rows(draw)),),
}
