"""The door to optional packages: its message, and that each line it prints works."""

import ast
import importlib.metadata
import itertools
import pathlib
import re
import shlex
import subprocess
import sys
import tomllib
import typing

import pytest

from keras_initx import extras

pytestmark = pytest.mark.tensorflow
ROOT = pathlib.Path(__file__).parents[1]
DECLARED = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


def distributions(extra):
    """Names of what an extra brings, those of the extras within it included."""
    for line in DECLARED[extra]:
        name, within = re.match(r"([\w.-]+)(?:\[([^]]*)\])?", line).groups()
        if name == "keras-initx":
            yield from itertools.chain(*map(distributions, within.split(",")))
        else:
            yield name.lower().replace("_", "-")


def asked():
    """What code asks of the door: file, extra and modules of each call."""
    for path in (ROOT / "keras_initx").rglob("*.py"):
        tree = ast.parse(path.read_text())
        tuples = {
            node.targets[0].id: [item.value for item in node.value.elts]
            for node in ast.walk(tree)
            if isinstance(node, ast.Assign)
            and isinstance(node.targets[0], ast.Name)
            and isinstance(node.value, ast.Tuple)
            and all(isinstance(item, ast.Constant) for item in node.value.elts)
        }
        for node in ast.walk(tree):
            if path.name == "extras.py" or not isinstance(node, ast.Call):
                continue
            name = ast.unparse(node.func)
            if name not in ("require", "require_ray"):
                continue
            given = node.args[1:] if name == "require_ray" else node.args
            modules = ["ray"] if name == "require_ray" else []
            for one in given:
                modules += tuples[one.value.id] if isinstance(one, ast.Starred) else [one.value]
            extra = next((key.value.value for key in node.keywords if key.arg == "extra"), "ray")
            yield path.name, extra, tuple(modules)


def test_the_extras_that_code_asks_for_are_declared():
    assert set(typing.get_args(extras.Extra)) <= set(DECLARED)
    found = list(asked())
    assert len(found) >= 9
    assert {extra for _, extra, _ in found} == set(typing.get_args(extras.Extra))


@pytest.mark.parametrize(("file", "extra", "modules"), list(asked()))
def test_an_extra_brings_the_modules_that_are_asked_of_it(file, extra, modules):
    """TensorFlow is a dependency of the package itself; what Ray Tune needs comes with ray[tune]."""
    brought = {*distributions(extra), "tensorflow"}
    known = importlib.metadata.packages_distributions()
    for module in modules:
        if extra == "ray" and module in ("fsspec", "pandas", "pyarrow", "requests"):
            continue
        of = {name.lower().replace("_", "-") for name in known.get(module, [module])}
        assert of & brought, module


@pytest.mark.parametrize("extra", typing.get_args(extras.Extra))
def test_the_printed_line_is_one_that_pip_takes(extra):
    """Run without an index and without changes: the package is found, and only what is missing is sought."""
    line = shlex.split(extras.pip_line(extra))
    assert line[:2] == ["pip", "install"]
    result = subprocess.run(
        [sys.executable, "-m", *line, "--dry-run", "--no-index"], capture_output=True, text=True, check=False
    )
    told = result.stdout + result.stderr
    missing = re.search(r"No matching distribution found for (\S+)", told)
    # Of an extra that is not installed here pip goes on to seek what it brings.
    assert result.returncode == 0 or f"(from keras-initx[{extra}])" in told.replace(", ", ")(from ")
    assert missing is None or not missing[1].startswith("keras-initx"), told


def test_a_missing_package_is_named_with_the_line_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "numpy", None)
    with pytest.raises(ImportError) as info:
        extras.require("scipy", "numpy", "nowhere", extra="serve", purpose="`serve`")
    assert str(info.value) == (
        "`serve` needs numpy, nowhere. Received: a Python without them. Install them with "
        "pip install 'keras-initx[serve]'"
    )
    extras.require("scipy", extra="serve", purpose="`serve`")


@pytest.mark.parametrize(("found", "refused"), [("2.59.3", True), ("2.9.0", True), ("2.60.0", False)])
def test_old_versions_of_ray_are_refused(monkeypatch, found, refused):
    monkeypatch.setattr(extras, "is_installed", lambda module: True)
    monkeypatch.setattr(importlib.metadata, "version", lambda name: found)
    if not refused:
        extras.require_ray("`Ray`")
        return
    with pytest.raises(ImportError, match=rf"let anybody in\. Received: ray {found}\..*keras-initx\[ray\]"):
        extras.require_ray("`Ray`")


def test_no_other_module_writes_a_pip_line():
    for path in (ROOT / "keras_initx").rglob("*.py"):
        if path.name != "extras.py":
            assert "pip install" not in path.read_text(), path
