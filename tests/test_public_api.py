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
from support import forked

pytestmark = pytest.mark.tensorflow  # it has no backend: once, from one of the suites

# The promise: the root's names, and the arguments of its verbs in their order.
ROOT = {
    "__version__": None,
    "calibrate": "model data initializer targets loss include exclude samples training frozen redraw "
    "tolerance max_iterations seed",
    "callbacks": None,
    "compare": "build_fn initializers train validation seeds learning_rates epochs metric mode target test "
    "batch_size runner store callbacks",
    "coordinates": "build widths initializer data optimizer loss steps seeds samples",
    "diagnose": "model data targets loss include exclude samples training jacobian try_cures seed",
    "diagnostics": None,
    "experiments": None,
    "export": "model path version signatures labels warmup keep portable",
    "fans": None,
    "gains": None,
    "initialize": "model initializer seed include exclude overrides frozen transactional",
    "initializers": None,
    "inspect": "path",
    "layers": None,
    "optimizers": None,
    "plots": None,
    "scaling": None,
    "serve": "root config batching host rest_port grpc_port workers token_file insecure tls_cert tls_key "
    "cors access_log poll_seconds timeout_seconds keep_alive_seconds max_body_bytes max_queue",
    "serving": None,
    "strategies": None,
    "walk": None,
}


def test_the_roots_names_and_the_arguments_of_its_verbs_are_as_promised():
    assert sorted(initx.__all__) == sorted(ROOT)
    verbs = {name: arguments for name, arguments in ROOT.items() if arguments is not None}
    found = {name: " ".join(inspect.signature(getattr(initx, name)).parameters) for name in verbs}
    assert found == verbs
    assert re.fullmatch(r"\d+\.\d+\.\d+", initx.__version__)


def test_the_readme_has_a_row_for_each_name_of_the_root():
    text = (pathlib.Path(__file__).parents[1] / "README.md").read_text()
    table = text.split("| name in `keras_initx` | use |")[1].split("\n\n")[0]
    assert sorted(re.findall(r"^\| \[?`(\w+)`", table, re.MULTILINE)) == sorted(initx.__all__)


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
        "scaling",
        "serving",
        "state",
        "summaries",
        "testing",
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
    """The package is on no index: a page names an extra of a clone. What code prints, test_extras.py runs."""
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
    ]
    lines = re.findall(r"pip install((?: (?:'[^']+'|[\w.-]+))+)", "".join(file.read_text() for file in files))
    assert len(lines) > 8
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
