"""A browser that may speak to 127.0.0.1 only, and the built book served there."""

import functools
import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
HTML = ROOT / "_build" / "html"
AXE = ROOT / "_build" / "assets" / "node_modules" / "axe-core" / "axe.min.js"
STATE = "application/vnd.jupyter.widget-state+json"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
REFERENCE = "chapters/reference/"
ADVICE = (
    "no Chromium: install one (apt-get install chromium, or Chrome on any system), or run: "
    "python -m playwright install chromium"
)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "lab: starts JupyterLab and moves a slider in it")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give `document` every page of the table of contents, `explorer` every explorable figure of every page.

    Pages of the reference are made alike: one of them stands for all.
    """
    if "document" in metafunc.fixturenames:
        pages = list(documents(yaml.safe_load((ROOT / "_toc.yml").read_text("utf-8"))))
        chosen = [page for page in pages if not page.startswith(REFERENCE) or page == f"{REFERENCE}quantization"]
        metafunc.parametrize("document", chosen)
    if "explorer" in metafunc.fixturenames:
        found = [
            pytest.param((document, number), id=f"{document}-{number}")
            for document in documents(yaml.safe_load((ROOT / "_toc.yml").read_text("utf-8")))
            for number, _ in enumerate(explorers(document))
        ]
        metafunc.parametrize("explorer", found)


def documents(toc: Any) -> Iterator[str]:
    """Yield the pages of a table of contents in reading order."""
    if isinstance(toc, list):
        for entry in toc:
            yield from documents(entry)
    elif isinstance(toc, dict):
        yield from (toc[key] for key in ("root", "file") if key in toc)
        for key in ("parts", "chapters", "sections"):
            yield from documents(toc.get(key))


def explorers(document: str) -> list[dict[str, Any]]:
    """Return what a notebook says of its explorable figures: each slider's label and stops, and all sentences."""
    path = ROOT / f"{document}.ipynb"
    if not path.exists():
        return []
    notebook = json.loads(path.read_text("utf-8"))
    models = notebook["metadata"].get("widgets", {}).get(STATE, {}).get("state", {})
    found = []
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            view = output.get("data", {}).get("application/vnd.jupyter.widget-view+json")
            box = models.get(view["model_id"], {}).get("state", {}) if view else {}
            if "tinytorch-explorer" not in box.get("_dom_classes", ()):
                continue
            *sliders, frame = (models[child.removeprefix("IPY_MODEL_")]["state"] for child in box["children"])
            found.append(
                {
                    "sliders": [(slider["description"], slider["_options_labels"]) for slider in sliders],
                    "sentences": frame["sentences"],
                }
            )
    return found


class Visit:
    """One page in one browser window, and everything that went wrong in it."""

    def __init__(self, page: Any, origin: str) -> None:
        self.page = page
        self.page.set_default_timeout(60_000)  # a busy machine is no failure
        self.origin = origin
        self.troubles: list[str] = []
        page.context.route("**/*", self._only_here)
        page.on("console", lambda message: message.type == "error" and self._note(f"console: {message.text}"))
        page.on("pageerror", lambda error: self._note(f"page error: {error}"))
        page.on("requestfailed", lambda request: self._note(f"failed request: {request.url}"))
        page.on("response", lambda answer: answer.status >= 400 and self._note(f"{answer.status}: {answer.url}"))

    def _note(self, trouble: str) -> None:
        self.troubles.append(trouble)

    def _only_here(self, route: Any) -> None:
        if route.request.url.startswith((self.origin, "data:", "blob:")):
            route.continue_()
        else:
            self._note(f"external request: {route.request.url}")
            route.abort()

    def open(self, document: str) -> Any:
        """Load a page and wait until its widgets, its mathematics and its fonts are there."""
        self.page.goto(f"{self.origin}/{document}.html", wait_until="load")
        self.page.wait_for_function(
            """() => !document.querySelector('script[type="application/vnd.jupyter.widget-view+json"]')
                     || document.documentElement.dataset.widgets === 'live'"""
        )
        self.page.evaluate("() => Promise.all([document.fonts.ready, window.MathJax?.startup?.promise])")
        return self.page

    def settle(self) -> None:
        """Wait until all images are there, and half a second for what else was asked for.

        Playwright's "networkidle" is the same, but for a page in hundreds for which it never comes.
        """
        self.page.wait_for_function("() => [...document.images].every((image) => image.complete)")
        self.page.wait_for_timeout(500)

    def violations(self, rules: list[str] | None = None) -> list[str]:
        """Return what axe finds, by all rules or by some of them: rule, help and the first elements."""
        self.page.evaluate(AXE.read_text("utf-8"))
        # Solutions lie folded: what is in them is looked at too.
        self.page.evaluate(
            """async () => {
              document.querySelectorAll("article details").forEach((fold) => { fold.open = true; });
              document.querySelectorAll("article .toggle-hidden").forEach((fold) => {
                fold.classList.remove("toggle-hidden");
              });
              await new Promise(requestAnimationFrame);
              await Promise.all(document.getAnimations().map((animation) => animation.finished));
            }"""
        )
        # The theme's button for light and dark is called after its purpose, its icons after their state.
        options = {"resultTypes": ["violations"]} | ({"runOnly": rules} if rules else {})
        result = self.page.evaluate("(how) => axe.run({ exclude: ['.theme-switch-button'] }, how)", options)
        return [
            f"{found['id']}: {found['help']}: "
            + "; ".join(f"{node['html'][:200]} ({(node['failureSummary'] or '')[:200]})" for node in found["nodes"][:3])
            for found in result["violations"]
        ]

    def sideways_scroll(self) -> int:
        """Return by how many pixels the page is wider than the window."""
        return self.page.evaluate("() => document.documentElement.scrollWidth - document.documentElement.clientWidth")


def find_browser(playwright: Any) -> str | None:
    """Return the path of a Chromium: the system's, else the one that Playwright installed."""
    for name in BROWSERS:
        if path := shutil.which(name):
            return path
    installed = playwright.chromium.executable_path
    return installed if Path(installed).exists() else None


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        path = find_browser(playwright)
        if path is None:
            (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(ADVICE)
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield browser
        browser.close()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture(scope="session")
def serve() -> Iterator[Any]:
    """Return a function that serves a folder on 127.0.0.1 and gives its origin."""
    servers = []

    def start(folder: Path) -> str:
        server = http.server.ThreadingHTTPServer(
            ("127.0.0.1", 0), functools.partial(_Quiet, directory=os.fspath(folder))
        )
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def _build() -> None:
    command = "jupyter-book build -W -n --keep-going --all ."  # all: Sphinx copies changed scripts only with a page
    program = shutil.which("jupyter-book", path=os.path.dirname(sys.executable)) or "jupyter-book"
    built = subprocess.run(
        [program, *command.split()[1:]],
        cwd=ROOT,
        capture_output=True,
        text=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    if built.returncode:
        pytest.fail(f"{command} failed:\n{(built.stdout + built.stderr)[-3000:]}")


@pytest.fixture(scope="session")
def book(serve: Any) -> str:
    """Return the origin of the book, built as it stands: here, unless BOOK_IS_BUILT says that it was done just now."""
    if os.environ.get("BOOK_IS_BUILT") != "1":
        if "PYTEST_XDIST_WORKER" in os.environ:
            pytest.fail("several processes cannot build one book: do it first, and set BOOK_IS_BUILT=1")
        _build()
    return serve(HTML)


@pytest.fixture(scope="session")
def book_on_disk(book: str) -> str:
    """Return where the same book lies, for a reader who opens the file itself."""
    return HTML.as_uri()


class Windows:
    """The open windows of one test or one module."""

    def __init__(self, browser: Any) -> None:
        self._browser, self._contexts = browser, []

    def __call__(self, origin: str, *, width: int = 1280, theme: str = "light", scripts: bool = True) -> Visit:
        context = self._browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=theme, java_script_enabled=scripts
        )
        self._contexts.append(context)
        return Visit(context.new_page(), origin)

    def close(self) -> None:
        while self._contexts:
            self._contexts.pop().close()


@pytest.fixture
def visit(browser: Any) -> Iterator[Windows]:
    """Return a function that opens a window: visit(origin, width=..., theme=..., scripts=...) -> Visit."""
    windows = Windows(browser)
    yield windows
    windows.close()


@pytest.fixture(scope="module")
def opened(browser: Any) -> Iterator[Any]:
    """Return a function that gives a page in a window that tests share: opened(origin, document) -> Visit.

    A page with many explorable figures takes seconds to load, and each of its figures has several tests.
    """
    windows, known = Windows(browser), {}

    def window(origin: str, document: str) -> Visit:
        if (origin, document) not in known:
            known[origin, document] = windows(origin)
            known[origin, document].open(document)
        return known[origin, document]

    yield window
    windows.close()


def _luminance(colour: str) -> float:
    channels = [float(part) / 255 for part in colour[colour.index("(") + 1 : -1].split(",")[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.fixture(scope="session")
def contrast() -> Any:
    """Return WCAG's ratio of two CSS colours such as "rgb(0, 0, 0)", as a function."""

    def ratio(first: str, second: str) -> float:
        dark, light = sorted((_luminance(first), _luminance(second)))
        return (light + 0.05) / (dark + 0.05)

    return ratio


@pytest.fixture(scope="session")
def stored_explorers() -> Any:
    """Return `explorers`."""
    return explorers


@pytest.fixture(scope="session")
def first_explorer() -> tuple[Path, dict[str, Any]]:
    """Return the first notebook that has an explorable figure, and what it says of that figure."""
    for document in documents(yaml.safe_load((ROOT / "_toc.yml").read_text("utf-8"))):
        for stored in explorers(document):
            return ROOT / f"{document}.ipynb", stored
    pytest.fail("no chapter has an explorable figure")
