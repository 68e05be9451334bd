"""What the tests of quantized models share."""

import numpy as np
import pytest

from tinytorch import data, zoo
from tinytorch.quantization import INT8Quantizer


@pytest.fixture(scope="session")
def cnn():
    """The shipped CNN. Tests leave it as it is."""
    return zoo.load("reference_cnn")


@pytest.fixture(scope="session")
def calibration_images():
    """256 of the training images."""
    images = data.fashion_mnist("train").images
    return images[np.random.default_rng(0).permutation(len(images))[:256]]


@pytest.fixture(scope="session")
def quantized(cnn, calibration_images):
    """The shipped CNN in whole numbers."""
    return INT8Quantizer().calibrate(cnn, calibration_images).convert(cnn)


@pytest.fixture(scope="session")
def test_images():
    return data.fashion_mnist("test")
