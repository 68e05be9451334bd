"""Array in, array out: the numerical work of the package, without tensors or gradients.

One file per operation, from the plain version to the best one. The layers above call these by name.
"""
