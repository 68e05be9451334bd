"""Two tasks on Fashion-MNIST: which of ten classes an image belongs to, and whether it is a sneaker at all."""

from __future__ import annotations

import numpy as np

from tinytorch import data
from tinytorch.benchmarks.tinymlperf.graph import Spec
from tinytorch.benchmarks.tinymlperf.tasks.task import Split, Task
from tinytorch.zoo.evaluation import auc, squared_errors

NORMAL = data.images.FASHION_CLASSES.index("sneaker")


def disturbed(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return images (N, 1, H, W) brighter or darker by up to a tenth, with a little noise.

    People see no difference, and the reference loses less than 0.1 points. But no two evaluations see the same numbers,
    so that a table of the test images is worth nothing. (Moved by one pixel, it would lose two points.)
    """
    brightness = rng.uniform(0.9, 1.1, (len(images), 1, 1, 1)).astype(np.float32)
    noise = rng.normal(0.0, 0.01, images.shape).astype(np.float32)
    return np.clip(images * brightness + noise, 0, 1)


class ImageClassification(Task):
    """Say which of ten classes of clothes an image shows."""

    model = "reference_cnn"
    name, title = "image-classification", "Image classification (Fashion-MNIST)"
    metric, unit, higher_is_better, allowed_loss = "accuracy", "%", True, 1.0
    input, output = Spec("x", "float32", ("N", 1, 28, 28)), Spec("scores", "float32", ("N", 10))
    batch_size, hidden_size = 64, 4096

    def public(self) -> Split:
        images = data.fashion_mnist("test")
        return Split(images.images, images.labels)

    def _draw(self, rng: np.random.Generator) -> Split:
        split = self.public()
        split = split[rng.permutation(len(split))[: self.hidden_size]]
        return Split(disturbed(split.inputs, rng), split.labels)

    def quality(self, outputs: np.ndarray, split: Split) -> float:
        return 100 * float((outputs.argmax(axis=1) == split.labels).mean())


class AnomalyDetection(Task):
    """Draw an image again, well if it is a sneaker and badly if not: the error is what tells them apart.

    Labels are 1 for what is no sneaker. The evaluator computes the errors, so that a model that returns its input has
    none for any image, and detects nothing.
    """

    model = "anomaly_autoencoder"
    name, title = "anomaly-detection", "Anomaly detection (sneakers against the rest of Fashion-MNIST)"
    metric, unit, higher_is_better, allowed_loss = "AUC", "of 1", True, 0.01
    input, output = Spec("x", "float32", ("N", 1, 28, 28)), Spec("drawn", "float32", ("N", 784))
    batch_size, hidden_size = 64, 4096

    def public(self) -> Split:
        images = data.fashion_mnist("test")
        return Split(images.images, (images.labels != NORMAL).astype(np.int64))

    def _draw(self, rng: np.random.Generator) -> Split:
        split = self.public()
        normal, others = (rng.permutation(np.flatnonzero(split.labels == label)) for label in (0, 1))
        chosen = rng.permutation(np.concatenate([normal, others[: self.hidden_size - len(normal)]]))
        return Split(disturbed(split.inputs[chosen], rng), split.labels[chosen])

    def quality(self, outputs: np.ndarray, split: Split) -> float:
        errors = squared_errors(outputs, split.inputs)
        return auc(errors[split.labels == 1], errors[split.labels == 0])
