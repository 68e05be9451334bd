"""Without Numba, whole numbers are computed by NumPy: the same numbers."""

import subprocess
import sys
import textwrap

import numpy as np

import tinytorch


def test_a_model_is_quantized_and_run_without_numba(cnn, calibration_images, tmp_path):
    """The calibration is NumPy's too there, so the ranges are given: those found here."""
    from tinytorch.quantization import INT8Quantizer

    with tinytorch.backend("numpy"):
        model = INT8Quantizer().calibrate(cnn, calibration_images).convert(cnn)
    np.save(tmp_path / "images.npy", calibration_images)
    np.save(tmp_path / "logits.npy", model(calibration_images[:20]).data)
    program = f"""
        import sys
        sys.modules["numba"] = sys.modules["llvmlite"] = None
        import warnings
        warnings.simplefilter("ignore", UserWarning)  # that it computes with NumPy
        import numpy as np
        from tinytorch import zoo
        from tinytorch.quantization import INT8Quantizer, dot_paths
        images, expected = (np.load(r"{tmp_path}/" + name) for name in ("images.npy", "logits.npy"))
        cnn = zoo.load("reference_cnn")
        model = INT8Quantizer().calibrate(cnn, images).convert(cnn)
        np.testing.assert_array_equal(model(images[:20]).data, expected)
        try:
            dot_paths()
        except ModuleNotFoundError as error:
            print(error)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert 'pip install "tinytorch-book[numba]"' in done.stdout
