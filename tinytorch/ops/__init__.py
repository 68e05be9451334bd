"""The differentiable operations: each a `Function` whose derivative stands under it. One file per family."""
