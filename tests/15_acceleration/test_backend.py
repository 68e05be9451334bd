"""The switch between the three ways to compute, and that they compute the same."""

import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest

import tinytorch
from tinytorch import Tensor, backend, get_num_threads, nn, no_grad, set_num_threads
from tinytorch.kernels import backend as backends
from tinytorch.kernels import matmul
from tinytorch.kernels.backend import BACKENDS, current_backend
from tinytorch.nn import functional as F

NO_NUMBA = "import sys; sys.modules['numba'] = None"
UNFIT_NUMBA = """
import sys
class Finder:
    def find_spec(self, name, *_):
        if name == "numba":
            raise ImportError("Numba needs NumPy 1.99 or less")
sys.meta_path.insert(0, Finder())
"""


@pytest.fixture(autouse=True)
def _restore():
    before, threads = backends._current, get_num_threads()
    yield
    backends._current = before
    set_num_threads(threads)


def run(program: str, *first: str) -> subprocess.CompletedProcess:
    text = "\n".join(textwrap.dedent(part) for part in (*first, program))
    return subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=120)


def output(program: str, *first: str) -> str:
    done = run(program, *first)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_call_switches_from_now_on():
    backend("naive")
    assert current_backend() == "naive"
    backend("numpy")
    assert current_backend() == "numpy"


def test_contexts_nest_and_restore():
    backend("numpy")
    with backend("naive"):
        assert current_backend() == "naive"
        with backend("numba") as inner:
            assert (current_backend(), inner.name, repr(inner)) == ("numba", "numba", "backend('numba')")
        assert current_backend() == "naive"
    assert current_backend() == "numpy"


def test_a_context_restores_after_an_exception():
    backend("numpy")
    with pytest.raises(ZeroDivisionError), backend("naive"):
        1 / 0  # noqa: B018
    assert current_backend() == "numpy"


def test_one_context_can_be_entered_again_and_within_itself():
    backend("numpy")
    naive = backend("naive")
    with naive:
        backend("numba")
        with naive:
            assert current_backend() == "naive"
        assert current_backend() == "numba"
    assert current_backend() == "numpy"
    with naive:
        assert current_backend() == "naive"
    assert current_backend() == "numpy"


def test_an_unknown_name_is_refused_with_the_known_ones():
    before = current_backend()
    with pytest.raises(ValueError, match=r"'cuda'.*naive, numpy, numba"):
        backend("cuda")
    assert current_backend() == before


def test_a_kernel_calls_the_version_of_its_backend():
    x = np.ones((1, 1), np.float32)
    for name in BACKENDS:
        calls = []
        with pytest.MonkeyPatch.context() as patch, backend(name):
            patch.setitem(matmul.matmul._versions, name, lambda *args, into=calls: into.append(args))
            matmul.matmul(x, x)
        assert len(calls) == 1


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.int64, np.dtype(np.float32).newbyteorder()])
@pytest.mark.parametrize("both", [True, False])
def test_only_float32_goes_to_numba(dtype, both):
    """Whatever the others are: a product of float32 and float64 keeps the precision of float64."""
    a = np.full((2, 2), 0.1).astype(dtype)
    b = a if both else np.full((2, 2), 0.1, np.float32)
    with pytest.MonkeyPatch.context() as patch, backend("numba"):
        patch.setitem(matmul.matmul._versions, "numba", None)
        for pair in ((a, b), (b, a)):
            out = matmul.matmul(*pair)
            np.testing.assert_array_equal(matmul.matmul(pair[0], b=pair[1]), out)
            assert out.dtype == np.matmul(*pair).dtype
            np.testing.assert_array_equal(out, np.matmul(*pair))


def test_arrays_off_the_boundaries_of_their_numbers_are_moved_before_compiled_code_sees_them():
    memory = np.zeros(17, np.uint8)
    x = memory[1:].view(np.float32).reshape(2, 2)
    x[...] = 1.0
    with backend("numba"):
        np.testing.assert_array_equal(matmul.matmul(x, x), 2.0)


def test_kernels_keep_the_docstring_and_signature_of_the_operation():
    assert "Multiply" in matmul.matmul.__doc__
    assert matmul.matmul.__name__ == "matmul"
    assert repr(matmul.matmul) == "<kernel tinytorch.kernels.matmul.matmul>"


def test_importing_tinytorch_does_not_import_numba():
    assert output("import sys, tinytorch; print('numba' in sys.modules)") == "False"


def test_numba_is_the_default_and_is_imported_by_the_first_kernel():
    program = """
        import sys
        import numpy as np
        import tinytorch
        from tinytorch.kernels.backend import current_backend
        x = tinytorch.Tensor(np.ones((2, 2), np.float32))
        print("numba" in sys.modules)
        x @ x
        print("numba" in sys.modules, current_backend())
    """
    assert output(program).split() == ["False", "True", "numba"]


@pytest.mark.parametrize(
    ("blocked", "reason"),
    [(NO_NUMBA, 'pip install "tinytorch-book[numba]"'), (UNFIT_NUMBA, "Numba needs NumPy 1.99 or less")],
    ids=["not installed", "does not fit"],
)
def test_without_numba_the_default_is_numpy_and_one_warning_says_why(blocked, reason):
    """Once in all, and also where every warning is shown each time."""
    program = """
        import warnings
        import numpy as np
        import tinytorch
        from tinytorch.kernels.backend import current_backend
        x = tinytorch.Tensor(np.ones((2, 2), np.float32))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for _ in range(3):
                y = x @ x
            with tinytorch.backend("naive"):
                y = x @ x
            y = x @ x
        print(current_backend(), y.data[0, 0], len(caught), caught[0].message)
    """
    said = output(program, blocked)
    assert said.startswith("numpy 2.0 1 TinyTorch computes with NumPy")
    assert reason in said


def test_without_numba_asking_for_it_says_what_to_install():
    program = """
        import tinytorch
        from tinytorch.kernels.backend import current_backend
        for attempt in range(2):
            try:
                tinytorch.backend("numba")
            except ModuleNotFoundError as error:
                print(error)
        with tinytorch.backend("naive"):
            print(current_backend())
    """
    *errors, name = output(program, NO_NUMBA).splitlines()
    assert errors == ['compiled kernels need numba: pip install "tinytorch-book[numba]"'] * 2
    assert name == "naive"


@pytest.mark.parametrize("name", ["matmul_numba", "matmul_simd"])
def test_without_numba_its_rungs_say_what_to_install(name):
    program = f"""
        import numpy as np
        from tinytorch.kernels import matmul
        try:
            matmul.{name}(np.ones((2, 2), np.float32), np.ones((2, 2), np.float32))
        except ModuleNotFoundError as error:
            print(error)
    """
    assert 'pip install "tinytorch-book[numba]"' in output(program, NO_NUMBA)


@pytest.mark.parametrize("count", [0, -1])
def test_no_threads_are_refused(count):
    with pytest.raises(ValueError, match=str(count)):
        set_num_threads(count)


def test_half_a_thread_is_refused():
    with pytest.raises(TypeError):
        set_num_threads(1.5)


def test_none_stands_for_every_core_that_the_process_may_use():
    set_num_threads(None)
    assert 1 <= get_num_threads() <= os.cpu_count()


def mlp(rng):
    return nn.Sequential(nn.Linear(6, 8, rng=rng), nn.GELU(), nn.Linear(8, 3, rng=rng)), rng.standard_normal((5, 6))


def cnn(rng):
    layers = [nn.Conv2d(1, 4, 3, padding=1, rng=rng), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2)]
    layers += [nn.Conv2d(4, 5, 3, stride=2, padding=1, rng=rng), nn.AvgPool2d(2), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(5, 3, rng=rng)), rng.standard_normal((3, 1, 8, 8))


def gpt(rng):
    return nn.GPT(7, embed_dim=8, num_layers=2, num_heads=2, max_seq_len=6, rng=rng), rng.integers(0, 7, (2, 6))


def everything(make, name: str, dtype: type = np.float32) -> dict[str, np.ndarray]:
    """Return what a model says before a training step and after it, its loss and all gradients."""
    rng = np.random.default_rng(0)
    model, x = make(rng)
    for p in model.parameters():
        p.data = p.data.astype(dtype)
    x = x if x.dtype.kind == "i" else Tensor(x.astype(dtype))
    with backend(name):
        model.eval()
        with no_grad():
            before = model(x)
        model.train()
        y = model(x)
        loss = F.cross_entropy(y.reshape(-1, y.shape[-1]), rng.integers(0, 3, y.shape[:-1]).reshape(-1))
        loss.backward()
        gradients = {key: p.grad.data.copy() for key, p in model.named_parameters()}
        tinytorch.optim.SGD(model.parameters(), lr=0.1).step()
        model.eval()
        with no_grad():
            after = model(x)
    return {"before": before.data, "loss": loss.data, "after": after.data, **gradients}


@pytest.mark.parametrize("make", [mlp, cnn, gpt])
@pytest.mark.parametrize("name", ["naive", "numba"])
def test_models_say_and_learn_the_same_on_every_backend(make, name):
    expected, got = everything(make, "numpy"), everything(make, name)
    assert expected.keys() == got.keys()
    for key, value in expected.items():
        assert got[key].dtype == np.float32
        np.testing.assert_allclose(got[key], value, rtol=2e-4, atol=2e-5, err_msg=key)


@pytest.mark.parametrize("make", [mlp, cnn])
def test_float64_gives_the_same_bits_with_numba_as_with_numpy(make):
    expected, got = everything(make, "numpy", np.float64), everything(make, "numba", np.float64)
    for key, value in expected.items():
        np.testing.assert_array_equal(got[key], value, err_msg=key)


@pytest.mark.parametrize("make", [mlp, cnn, gpt])
def test_results_do_not_depend_on_the_number_of_threads(make):
    """Not in one bit: what is added to what is decided before the work is divided."""
    results = []
    for threads in (1, 2, 3):
        set_num_threads(threads)
        results.append(everything(make, "numba"))
    for other in results[1:]:
        for key, value in results[0].items():
            np.testing.assert_array_equal(other[key], value, err_msg=key)


@pytest.mark.parametrize("shape", [(130, 70, 65), (1, 40, 500), (8, 40, 500), (300, 9, 32)])
def test_large_products_do_not_depend_on_the_number_of_threads(shape):
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal(shape[:2], np.float32), rng.standard_normal(shape[1:], np.float32)
    results = []
    with backend("numba"):
        for threads in (1, 2, 3, 7):
            set_num_threads(threads)
            results.append((matmul.matmul(a, b), matmul.matmul(a, np.asfortranarray(b))))
    for pair in results[1:]:
        np.testing.assert_array_equal(pair, results[0])
