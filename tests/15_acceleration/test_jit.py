"""The compiler's cache on disk, and the line that says when it works."""

import importlib.util
import os
import shutil
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

from tinytorch.kernels.__main__ import main
from tinytorch.kernels.compiled import jit as compiler

LINE = "compiling kernels, once for this machine"
PRODUCT = """
    import numpy as np
    from tinytorch.kernels import matmul
    from tinytorch.kernels.compiled.jit import compiled_functions
    a = np.arange(12, dtype=np.float32).reshape(3, 4)
    assert (matmul.matmul_numba(a, a.T) == np.matmul(a, a.T)).all()
    print(compiled_functions())
"""


def run(program: str, folder: Path, **more) -> subprocess.CompletedProcess:
    environment = os.environ | {"TINYTORCH_CACHE_DIR": str(folder)}
    command = [sys.executable, "-c", textwrap.dedent(program)]
    return subprocess.run(command, env=environment, text=True, timeout=600, **({"capture_output": True} | more))


def compilations(program: str, folder: Path) -> tuple[int, str]:
    """Run a program that prints how many functions it compiled; return that, and what it wrote to stderr."""
    done = run(program, folder)
    assert done.returncode == 0, done.stderr
    return int(done.stdout.split()[-1]), done.stderr


def test_the_second_process_does_not_compile_and_the_first_says_that_it_does(tmp_path):
    count, said = compilations(PRODUCT, tmp_path / "cache")
    assert count > 0
    assert said.count(LINE) == 1
    assert compilations(PRODUCT, tmp_path / "cache") == (0, "")


def test_a_terminal_shows_a_bar_and_clears_it(tmp_path):
    ours, theirs = pytest.importorskip("pty").openpty()
    pytest.importorskip("termios").tcsetwinsize(theirs, (24, 100))
    done = run(PRODUCT, tmp_path, capture_output=False, stdout=subprocess.PIPE, stderr=theirs)
    os.set_blocking(ours, False)
    shown = os.read(ours, 1 << 16).decode()
    os.close(theirs)
    os.close(ours)
    assert done.returncode == 0
    assert LINE in shown
    assert shown.rpartition("\r")[2] == ""


def test_in_a_notebook_cells_stay_clean(tmp_path):
    """What a cell puts out is compared, and must not depend on whether it was the first to need a kernel."""
    program = (
        "import io, sys; sys.stdout, sys.stderr, out = io.StringIO(), io.StringIO(), sys.stdout"
        + textwrap.dedent(PRODUCT.replace("print(compiled_functions())", ""))
    )
    count, said = compilations(
        program + "assert sys.stdout.getvalue() + sys.stderr.getvalue() == ''\nprint(compiled_functions(), file=out)",
        tmp_path,
    )
    assert count > 0
    assert LINE in said


@pytest.mark.parametrize("damage", ["a file in its place", "gone", "a folder for each file", "cut off", "rubbish"])
def test_whatever_happens_to_the_folder_results_are_right(tmp_path, damage):
    """Root may write where the permissions forbid it, so that what cannot be written is something else."""
    cache = tmp_path / "cache"
    if damage == "a file in its place":
        cache.write_text("not a folder")
    else:
        compilations(PRODUCT, cache)
        (folder,) = cache.iterdir()
        files = list(folder.iterdir())
        assert files
        for file in files:
            data = file.read_bytes()
            file.unlink()
            if damage == "a folder for each file":
                (file / "inside").mkdir(parents=True)
            elif damage != "gone":
                file.write_bytes(data[: len(data) // 2] if damage == "cut off" else b"rubbish")
    count, _ = compilations(PRODUCT, cache)
    assert count > 0
    if damage in ("gone", "cut off", "rubbish"):
        assert compilations(PRODUCT, cache)[0] == 0


def test_a_folder_that_becomes_read_only_is_still_read(tmp_path, monkeypatch):
    """Nothing can be written any more, while the process goes on: what lies there is used, the rest compiled."""
    compilations(PRODUCT, tmp_path)
    forbidden = """
        import os, pathlib
        def refuse(*_, **__):
            raise PermissionError(13, "read-only")
        os.utime = os.replace = pathlib.Path.write_bytes = pathlib.Path.mkdir = refuse
    """
    assert compilations(textwrap.dedent(forbidden) + textwrap.dedent(PRODUCT), tmp_path)[0] == 0
    other = PRODUCT.replace("np.float32", "np.float64")
    assert compilations(textwrap.dedent(forbidden) + textwrap.dedent(other), tmp_path)[0] > 0
    assert compilations(other, tmp_path)[0] > 0


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="permissions do not bind root")
def test_a_folder_without_write_permission_is_still_read(tmp_path):
    compilations(PRODUCT, tmp_path)
    (folder,) = tmp_path.iterdir()
    for path in (folder, tmp_path):
        path.chmod(0o500)
    assert compilations(PRODUCT, tmp_path)[0] == 0
    assert compilations(PRODUCT.replace("np.float32", "np.float64"), tmp_path)[0] > 0


@pytest.fixture
def copy(tmp_path):
    """A copy of the compiler's module among copies of its neighbours, to be changed."""
    shutil.copytree(Path(compiler.__file__).parent, tmp_path / "compiled")

    def load():
        spec = importlib.util.spec_from_file_location("jit_copy", tmp_path / "compiled" / "jit.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        compiler.event.unregister("numba:compile", module._progress)
        return module

    load.files = sorted((tmp_path / "compiled").glob("*.py"))
    return load


def test_a_change_of_any_file_of_kernels_gives_another_folder(copy):
    folders = {copy().cache_folder()}
    assert len(copy.files) > 4
    for n, file in enumerate(copy.files):
        file.write_text(file.read_text() + "\n# changed\n")
        folders.add(copy().cache_folder())
        assert len(folders) == n + 2
    copy.files[-1].rename(copy.files[-1].with_name("renamed.py"))
    folders.add(copy().cache_folder())
    assert len(folders) == len(copy.files) + 2


def test_folders_of_old_versions_are_removed_but_for_the_newest(copy, tmp_path, monkeypatch):
    root = tmp_path / "cache"
    others = ["kernels-of-somebody-else", "notes"]
    old = [f"kernels-{n:016x}" for n in range(10)]
    for n, name in enumerate(old + others):
        (root / name).mkdir(parents=True)
        (root / name / "file").touch()
        os.utime(root / name, (n, n))
    monkeypatch.setenv("TINYTORCH_CACHE_DIR", str(root))
    module = copy()
    ours = module.cache_folder()
    module.jit(copy_of_product)
    assert {f.name for f in root.iterdir()} == {ours.name, *old[-module._KEPT :], *others}


def copy_of_product(x):
    return x * x


def test_a_folder_in_use_is_not_taken_for_an_old_one(copy, tmp_path, monkeypatch):
    monkeypatch.setenv("TINYTORCH_CACHE_DIR", str(tmp_path / "cache"))
    folder = copy().cache_folder()
    folder.mkdir(parents=True)
    os.utime(folder, (1, 1))
    copy().jit(copy_of_product)
    assert time.time() - folder.stat().st_mtime < 60


def test_functions_of_one_name_do_not_mix(tmp_path):
    """Neither by what they close over, nor by the functions among their arguments; and both are found on disk."""
    (tmp_path / "program.py").write_text(
        textwrap.dedent("""
        from tinytorch.kernels.compiled.jit import compiled_functions, jit

        def adder(n):
            @jit
            def add(x):
                return x + n
            return add

        @jit
        def twice(function, x):
            return function(function(x))

        one, ten = adder(1), adder(10)
        assert (one(1), ten(1)) == (2, 11)
        assert (twice(one, 1), twice(ten, 1)) == (3, 21)
        assert (twice(ten, 1), twice(one, 1)) == (21, 3)
        """)
    )
    program = f"""
        import sys
        sys.path.insert(0, {str(tmp_path)!r})
        from numba.core import event
        with event.install_recorder("numba:compile") as recorder:
            import program
        print(len(recorder.buffer))
    """
    assert compilations(program, tmp_path / "cache")[0] > 0
    assert compilations(program, tmp_path / "cache")[0] == 0


def test_functions_for_any_layout_are_compiled_once_for_all():
    @compiler.jit(any_layout=True)
    def corner(x, out):
        out[0] = x[0, 0] + x[0, 1] * 10 + x[1, 0] * 100

    out = np.zeros(1)
    wide = np.arange(24.0).reshape(4, 6)
    for x in (wide, np.asfortranarray(wide), wide[::2, ::3], wide[:, ::-1], wide.T):
        for _ in range(2):
            corner(x, out)
            assert out[0] == x[0, 0] + x[0, 1] * 10 + x[1, 0] * 100
    assert len(corner.signatures) == 1


WARMUP = """
    from tinytorch.kernels.warmup import warmup
    print(warmup())
"""
MODELS = """
    import numpy as np
    import tinytorch
    from tinytorch import Tensor, nn, no_grad
    from tinytorch.kernels import matmul
    from tinytorch.kernels.compiled.jit import compiled_functions
    from tinytorch.nn import functional as F
    from tinytorch.zoo.models import char_gpt, reference_cnn

    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 1, 28, 28), np.float32)
    mlp = nn.Sequential(nn.Flatten(), nn.Linear(784, 32, rng=rng), nn.ReLU(), nn.Linear(32, 10, rng=rng))
    for model, x in ((mlp, Tensor(x)), (reference_cnn(rng), Tensor(x)), (char_gpt(rng), rng.integers(0, 60, (2, 20)))):
        optimizer = tinytorch.optim.AdamW(model.parameters(), lr=1e-3)
        y = model(x)
        F.cross_entropy(y.reshape(-1, y.shape[-1]), rng.integers(0, 9, y.shape[:-1]).reshape(-1)).backward()
        optimizer.step()
        model.eval()
        with no_grad():
            model(x)
            model(x[:1])
    model.generate([1, 2, 3], 3, rng=rng)
    a = rng.standard_normal((64, 64), np.float32)
    for rung in (matmul.matmul_numba, matmul.matmul_simd):
        rung(a, a)
    print(compiled_functions())
"""


def test_after_the_warmup_no_model_of_the_book_waits_for_the_compiler(tmp_path):
    assert compilations(WARMUP, tmp_path)[0] > 0
    assert compilations(MODELS, tmp_path) == (0, "")
    assert compilations(WARMUP, tmp_path)[0] == 0


def test_the_command_says_where_the_cache_is(capsys):
    assert main(["warmup"]) == 0
    said = capsys.readouterr().out
    assert str(compiler.cache_folder()) in said
    assert "ready after" in said


@pytest.mark.parametrize("arguments", [[], ["cool"]])
def test_without_a_known_command_usage_is_printed(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert "usage: python -m tinytorch.kernels" in capsys.readouterr().err


def test_ctrl_c_is_answered_and_what_was_compiled_kept(monkeypatch, capsys):
    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr("tinytorch.kernels.__main__.warmup", interrupted)
    assert main(["warmup"]) == 130
    assert "stopped" in capsys.readouterr().err


def test_without_numba_the_command_says_what_to_install(tmp_path):
    done = run(
        "import sys; sys.modules['numba'] = None; from tinytorch.kernels.__main__ import main; exit(main(['warmup']))",
        tmp_path,
    )
    assert done.returncode == 1
    assert 'pip install "tinytorch-book[numba]"' in done.stderr


CLOSURES = """
    from tinytorch.kernels.compiled.jit import jit

    def adder(n):
        @jit
        def inner(x):
            total = 0
            for i in range(x):
                {lines}
            return total + n

        @jit
        def outer(x):
            return inner(x) + inner(x + 1)

        return outer
"""
LINES = "\n                ".join(
    f"if (x + i) % {k} == 1: total += i // {k}" for k in range(3, 90)
)  # too long to be inlined


def test_functions_that_were_compiled_in_different_processes_do_not_answer_for_each_other(tmp_path):
    """Numba numbers the functions of a process; those of two processes have the same numbers, and once had one name."""
    (tmp_path / "closures.py").write_text(textwrap.dedent(CLOSURES.format(lines=LINES)))
    path = f"import sys; sys.path.insert(0, r'{tmp_path}')\nfrom closures import adder\n"
    for n in (1, 2):
        done = run(f"{path}print(adder({n})(0))", tmp_path / "cache")
        assert (done.returncode, done.stdout.split()) == (0, [f"{2 * n}"]), done.stderr
    done = run(f"{path}print(adder(1)(0), adder(2)(0), adder(3)(0))", tmp_path / "cache")
    assert (done.returncode, done.stdout.split()) == (0, ["2", "4", "6"]), done.stderr
