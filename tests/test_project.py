"""Promises about the repository itself."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import tinytorch

ROOT = Path(__file__).parents[1]
CHAPTERS = sorted(path for path in ROOT.glob("chapters/[0-9]*_*") if path.is_dir())


def text_of(path: Path | str) -> str:
    """Return a file's text, or nothing of a file that holds none."""
    data = (ROOT / path).read_bytes()
    return "" if b"\0" in data else data.decode()


PROJECT = tomllib.loads(text_of("pyproject.toml"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
LOCK = text_of("requirements.lock")
MAKEFILE = text_of("Makefile")

MACHINE_PATH = re.compile(r"(?<![\w+/=.-])(?:/(?:root|home|work|opt|Users|mnt)/|[A-Z]:\\Users\\)\w")
REGISTRY = re.compile(
    r"pypi\.org|pythonhosted\.org|npmjs\.(?:org|com)|download\.pytorch\.org|debian\.org|index-url [a-z]+:"
)


def tracked(*patterns: str) -> list[Path]:
    """Return the files that are committed, or would be."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", *patterns]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    return [ROOT / name for name in names if name and (ROOT / name).is_file()]


def test_no_file_names_a_machines_path_or_a_registrys_host():
    found = {
        f"{path.relative_to(ROOT)}: {match[0]}"
        for path in tracked()
        for pattern in (MACHINE_PATH, REGISTRY)
        for match in pattern.finditer(text_of(path))
    }
    assert found == set()


@pytest.mark.parametrize(
    "text", ["/home" + "/ada/x", '"/root' + '/x"', r"C:" + r"\Users\ada", "https://pypi" + ".org/x"]
)
def test_the_search_for_paths_and_hosts_finds_them(text):
    assert MACHINE_PATH.search(text) or REGISTRY.search(text)


def test_no_third_party_script_or_style_is_committed():
    scripts = tracked("*.js", "*.mjs", "*.css")
    assert scripts
    bundled = [path for path in scripts if max(map(len, text_of(path).splitlines()), default=0) > 200]
    assert bundled == []
    assert tracked("*.min.*", "**/node_modules/**", "*.wasm", "*.whl") == []


def test_every_python_file_holds_one_idea():
    """An idea fits into 350 lines."""
    lengths = {path: len(text_of(path).splitlines()) for path in tracked("*.py")}
    assert {str(path.relative_to(ROOT)): lines for path, lines in lengths.items() if lines > 350} == {}


def test_every_file_name_is_possible_on_windows():
    assert [path for path in tracked() if re.search(r'[<>:"|?*\\]', str(path.relative_to(ROOT)))] == []


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md"])
def test_the_documented_make_targets_exist(document):
    named = set(re.findall(r"(?:`|^ *(?:\$ )?)make ([a-z]+)", text_of(document), re.MULTILINE))
    assert named
    assert named <= set(re.findall(r"^([a-z]+):", MAKEFILE, re.MULTILINE))


def test_a_chapter_and_its_tests_carry_one_name():
    assert CHAPTERS
    for chapter in CHAPTERS:
        name = chapter.name.partition("_")[2]
        parts = [
            chapter / "README.md",
            chapter / f"{name}.md",
            chapter / f"{name}.ipynb",
            ROOT / "tests" / chapter.name,
        ]
        assert [part for part in parts if not part.exists()] == []


def test_the_table_of_contents_has_every_chapter():
    toc = yaml.safe_load(text_of("_toc.yml"))
    listed = {entry["file"] for part in toc["parts"] for entry in part["chapters"]}
    assert {f"chapters/{chapter.name}/README" for chapter in CHAPTERS} <= listed


def test_importing_the_package_is_cheap():
    """Modules are counted where seconds would depend on the machine; `make bench` has the seconds."""
    code = "import sys, numpy; known = set(sys.modules); import tinytorch; print(*(set(sys.modules) - known))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = done.stdout.split()
    roots = {name.partition(".")[0] for name in loaded}
    assert "tinytorch" in roots
    assert not roots & {"IPython", "ipywidgets", "llvmlite", "matplotlib", "numba", "scipy", "torch", "tqdm"}
    assert len(loaded) < 150


def test_progress_bars_are_made_in_one_place():
    """It decides where they are written; while kernels are compiled, there may be no place at all."""
    importing = {path.relative_to(ROOT).as_posix() for path in tracked("tinytorch/*.py") if "tqdm" in text_of(path)}
    assert importing == {"tinytorch/kernels/progress.py", "tinytorch/kernels/compiled/jit.py"}


def test_the_version_is_the_same_everywhere():
    citation = yaml.safe_load(text_of("CITATION.cff"))
    assert PROJECT["version"] == tinytorch.__version__ == citation["version"]


def test_the_lock_pins_everything_that_the_project_asks_for():
    pins = {canonicalize_name(name): pin for name, pin in re.findall(r"^([\w.-]+)==(\S+)", LOCK, re.MULTILINE)}
    for wanted in map(Requirement, [*PROJECT["dependencies"], *EXTRAS["numba"], *EXTRAS["book"], *EXTRAS["test"]]):
        if wanted.name == PROJECT["name"]:  # the extra "book" takes in "numba"
            continue
        assert wanted.specifier.contains(pins[canonicalize_name(wanted.name)]), wanted


def test_the_lock_holds_no_address_and_hashes_every_file():
    assert "://" not in LOCK
    assert all("--hash=sha256:" in entry for entry in re.split(r"^(?=\S)", LOCK, flags=re.MULTILINE) if "==" in entry)


def test_the_torch_that_the_tests_install_is_the_one_that_the_project_names():
    assert set(re.findall(r"torch==[\w.]+", MAKEFILE)) == set(EXTRAS["torch"])
