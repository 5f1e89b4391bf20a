"""The promised names, and what importing the package costs and needs."""

import importlib.util
import inspect
import itertools
import os
import pathlib
import re
import shlex
import subprocess
import sys
import tomllib

import pytest

import keras_initx as initx
from support import forked, promised_names

pytestmark = pytest.mark.tensorflow  # it has no backend: once, from one of the suites


def test_promised_names_and_their_arguments_stay():
    """If you mean a change, write the list anew: `PYTHONPATH=tests python -m support.promised_names`."""
    assert promised_names.promised() == promised_names.FILE.read_text().splitlines()
    assert initx.__version__.count(".") == 2


@pytest.mark.parametrize(
    "room",
    [
        "initializers",
        "fans",
        "gains",
        "gradients",
        "callbacks",
        "calibration",
        "cli",
        "data",
        "diagnostics",
        "experiments",
        "plots",
        "probe",
        "recurrence",
        "saved_model",
        "serving",
        "state",
        "summaries",
        "walk",
    ],
)
def test_every_public_object_is_documented_and_annotated(room):
    module = importlib.import_module(f"keras_initx.{room}")
    assert module.__doc__
    for name in module.__all__:
        thing = getattr(module, name)
        assert inspect.getdoc(thing), name
        if inspect.isfunction(thing):
            assert inspect.signature(thing).return_annotation is not inspect.Signature.empty, name


def test_errors_and_docstrings_give_the_reference_of_each_scheme():
    for name in initx.initializers.names():
        cls = getattr(initx.initializers, name.removeprefix("initx>"))
        parts = ["Law:", ">>>", "Raises:", "Reference:", *(["Args:"] if cls().get_config() else [])]
        assert [part for part in parts if part not in cls.__doc__] == [], name


def test_import_loads_nothing_heavy():
    code = (
        "import sys, keras; before = set(sys.modules); import keras_initx\n"
        "heavy = {'ray', 'matplotlib', 'tensorflow_serving', 'grpc', 'sklearn', 'tensorflow_datasets'}\n"
        "new = {name.split('.')[0] for name in set(sys.modules) - before}\n"
        "assert not new & heavy, new & heavy"
    )
    forked.run(["-c", code], preload="keras", check=True)


@pytest.mark.skipif(not importlib.util.find_spec("jax"), reason="JAX is not installed")
def test_import_and_calibrate_under_jax_where_tensorflow_cannot_be_imported():
    code = (
        "import sys; sys.modules['tensorflow'] = None\n"
        "import keras, keras_initx as initx\n"
        "model = keras.Sequential([keras.layers.Input((4,))])\n"
        "model.add(keras.layers.Dense(3, kernel_initializer='initx>LSUV'))\n"
        "assert abs(initx.calibrate(model, None).rows[0].std_after - 1) < 1e-3\n"
        "assert not any(name.startswith('tensorflow.') for name in sys.modules)"
    )
    environment = os.environ | {"KERAS_BACKEND": "jax"}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)


def test_every_pip_line_names_what_the_project_declares():
    """The package is on no index: a line that asks for it by name fails; an extra of a clone does not."""
    root = pathlib.Path(__file__).parents[1]
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    declared = {
        re.match(r"[\w.-]+", line)[0] for line in itertools.chain(project["dependencies"], *extras.values())
    }
    files = [
        root / "README.md",
        *root.glob("docs/*.md"),
        *root.glob("*/README.md"),
        *root.rglob("keras_initx/**/*.py"),
    ]
    lines = re.findall(r"pip install((?: (?:'[^']+'|[\w.-]+))+)", "".join(file.read_text() for file in files))
    assert len(lines) > 15
    for word in (word for line in lines for word in shlex.split(line)):
        name, _, extra = word.rstrip("]").partition("[")
        if name == ".":
            assert set(filter(None, extra.split(","))) <= set(extras), word
        else:
            assert name in declared, word


def shell_lines():
    """Lines of the pages and of the examples' help that a reader pastes into a shell."""
    root = pathlib.Path(__file__).parents[1]
    pages = [
        root / "README.md",
        *root.glob("docs/*.md"),
        *root.glob("*/README.md"),
        *root.glob("examples/**/*.py"),
    ]
    for page in pages:
        text = page.read_text()
        for block in re.findall(r"```\n(.*?)```|(?:^| )`([^`\n]+)`", text, re.DOTALL):
            yield from (line for line in "".join(block).splitlines() if re.match(r"\S*(initx|python) ", line))
        yield from (line for line in text.splitlines() if line.startswith("    python examples/"))


def test_no_command_of_ours_makes_a_shell_write_a_file_by_an_initializers_name():
    found = list(shell_lines())
    assert len(found) > 30
    for line in found:
        unquoted = re.sub(r"'[^']*'|\"[^\"]*\"", "", line)
        assert "initx>" not in unquoted, line
