"""JupyterLab itself: a trusted chapter shows its sliders before anything has run, and moves them."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest

pytestmark = pytest.mark.lab

SETTINGS = {
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}


@pytest.fixture
def lab(tmp_path, request):
    """Return a function that starts JupyterLab on a copy of a notebook, with its own settings and a kernel or none."""
    started = []

    def start(notebook, theme, kernel):
        work = tmp_path / "work"
        work.mkdir()
        copy = shutil.copy(notebook, work)
        settings = SETTINGS | {"apputils-extension/themes": {"theme": theme}}
        # All cells on the page at once: what lies below the window is otherwise not there to be found.
        settings["notebook-extension/tracker"] = {"windowingMode": "none", "autoStartDefaultKernel": kernel}
        for name, values in settings.items():
            path = tmp_path / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(values))
        environment = os.environ | {
            "JUPYTERLAB_SETTINGS_DIR": str(tmp_path / "settings"),
            "JUPYTER_CONFIG_DIR": str(tmp_path / "config"),
            "JUPYTER_DATA_DIR": str(tmp_path / "data"),
            "JUPYTER_RUNTIME_DIR": str(tmp_path / "runtime"),
            "JUPYTERLAB_WORKSPACES_DIR": str(tmp_path / "workspaces"),
        }
        jupyter = [sys.executable, "-m", "jupyter"]
        subprocess.run([*jupyter, "trust", copy], env=environment, check=True, capture_output=True)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        origin = f"http://127.0.0.1:{port}"
        options = ["--no-browser", "--ip=127.0.0.1", f"--port={port}", f"--ServerApp.root_dir={work}"]
        options += ["--IdentityProvider.token=", "--ServerApp.password=", "--allow-root"]
        log = (tmp_path / "lab.log").open("w")
        server = subprocess.Popen([*jupyter, "lab", *options], env=environment, stdout=log, stderr=log, cwd=work)
        started.append((server, log))
        wait_for(f"{origin}/api/status", server, tmp_path / "lab.log")
        return origin, f"{origin}/lab/tree/{os.path.basename(copy)}"

    yield start
    for server, log in started:
        server.terminate()
        server.wait(30)
        log.close()


def wait_for(address, server, log):
    for _ in range(240):
        if server.poll() is not None:
            pytest.fail(f"JupyterLab ended with {server.returncode}:\n{log.read_text()[-2000:]}")
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except (urllib.error.URLError, TimeoutError):
            time.sleep(0.25)
    pytest.fail(f"JupyterLab did not answer within a minute:\n{log.read_text()[-2000:]}")


@pytest.mark.parametrize("theme", ["JupyterLab Light", "JupyterLab Dark"])
def test_a_trusted_chapter_moves_its_sliders(lab, visit, first_explorer, theme, contrast):
    notebook, stored = first_explorer
    origin, address = lab(notebook, theme, kernel=False)
    page = visit(origin, width=1280).page
    page.goto(address)
    box = page.locator(".tinytorch-explorer").first
    for name, stops in stored["sliders"]:
        slider = box.get_by_role("slider", name=name, exact=True)
        slider.wait_for(timeout=60_000)
        slider.focus()
        page.keyboard.press("End")
        assert slider.get_attribute("aria-valuetext") == stops[-1]
    assert box.locator(".tinytorch-sentence").inner_text() == stored["sentences"][-1]
    assert box.locator(".tinytorch-frame svg").is_visible()
    words, ground = box.locator(".tinytorch-sentence").evaluate(
        """words => [getComputedStyle(words).color,
                     getComputedStyle(document.querySelector('.jp-Notebook')).backgroundColor]"""
    )
    assert contrast(words, ground) >= 4.5


SOURCE = """
from tinytorch.book import explore, subplots

def draw(bits):
    figure, axes = subplots()
    axes.plot([0, bits])
    return figure, f"{bits} bits."

explore(draw, bits=[2, 4, 8])
"""


def test_a_cell_that_is_run_shows_a_slider_that_moves(lab, visit, tmp_path):
    notebook = tmp_path / "fresh.ipynb"
    cell = {"cell_type": "code", "metadata": {}, "source": SOURCE.strip(), "outputs": [], "execution_count": None}
    kernel = {"name": "python3", "display_name": "Python 3"}
    document = {"nbformat": 4, "nbformat_minor": 4, "metadata": {"kernelspec": kernel}, "cells": [cell]}
    notebook.write_text(json.dumps(document))
    origin, address = lab(notebook, "JupyterLab Light", kernel=True)
    page = visit(origin).page
    page.goto(address)
    slider = page.get_by_role("slider", name="bits", exact=True)
    page.locator(".jp-CodeCell .cm-content").click(timeout=60_000)
    for _ in range(20):  # JupyterLab loses the key while it connects to the kernel, and says so nowhere
        page.keyboard.press("Control+Enter")
        page.wait_for_timeout(4000)
        if slider.count():
            break
    slider.focus()
    for stop in ("4", "8"):
        page.keyboard.press("ArrowRight")
        page.get_by_text(f"{stop} bits.", exact=True).wait_for()
        assert slider.get_attribute("aria-valuetext") == stop
