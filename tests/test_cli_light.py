"""The command answers before Keras is imported, and has the defaults of the Python functions."""

import inspect
import json
import os
import shutil
import subprocess
import sys

import keras
import pytest

import keras_initx as initx
from _initx_command._main import make_parser
from _initx_command._signatures import defaults_of
from keras_initx.serving import serve_on_ray

pytestmark = pytest.mark.tensorflow  # it starts processes, or has no backend: in one suite of the three
VERBS = (
    "list",
    "show",
    "initialize",
    "calibrate",
    "diagnose",
    "compare",
    "coordinates",
    "export",
    "inspect",
    "serve",
)
HEAVY = ("jax", "keras", "keras_initx", "numpy", "tensorflow", "torch")

CODE = """
import contextlib, io, json, sys
from _initx_command import main
told = {}
for arguments in json.loads(sys.argv[1]):
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            status = main(arguments)
        except SystemExit as end:
            status = end.code
    told[" ".join(arguments)] = [status, sorted({name.partition(".")[0] for name in sys.modules})]
print(json.dumps(told))
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with a bare SavedModel of one version, and a model."""
    from tensorflow.core.protobuf import saved_model_pb2

    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits" / "1").mkdir(parents=True)
    message = saved_model_pb2.SavedModel(meta_graphs=[{"meta_info_def": {"tensorflow_version": "2.20.0"}}])
    (tmp_path / "digits" / "1" / "saved_model.pb").write_bytes(message.SerializeToString())
    model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(2, name="head")])
    model.save("model.keras")
    return tmp_path


def run(*arguments, **options):
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, check=False, **options
    )


def test_what_needs_no_model_is_answered_without_keras_tensorflow_and_numpy(folder):
    """One process: what one command imported would still be there at the next."""
    done = [
        ["--help"],
        *([verb, "--help"] for verb in VERBS),
        ["--version"],
        *(["--print-completion", shell] for shell in ("bash", "tcsh", "zsh")),
        ["list"],
        ["list", "--json"],
        ["show", "HeScaled"],
        ["show", "initx>LSUV", "--json"],
        ["show", "by_role"],
        ["show", "he_normal"],
        ["inspect", "digits"],
    ]
    refused = [
        ["shwo"],
        ["show", "HeScaled", "3,,4"],
        ["show", "MuP", "3x3"],
        ["inspect", "nowhere"],
        ["diagnose", "missing.keras"],
        ["diagnose", "model.keras", "--check", "max_gian=2"],
        ["initialize", "model.keras", "--out", "new.h5"],
        ["calibrate", "missing.keras", "--out", "new.keras"],
        ["compare", "model.keras", "--data", "none", "--initializers", "zeros"],
        ["export", "model.keras", "digits", "--labels", "no.txt"],
        ["serve", "digits", "--replicas", "3"],
    ]
    ended = run("-c", CODE, json.dumps(done + refused))
    assert ended.returncode == 0, ended.stderr
    told = json.loads(ended.stdout)
    assert len(told) == len(done) + len(refused)
    for number, (command, (status, imported)) in enumerate(told.items()):
        assert status == (0 if number < len(done) else 2), command
        assert not set(HEAVY) & set(imported), command


def test_data_that_cannot_be_read_is_refused_before_keras_is_imported(folder):
    commands = [
        ["diagnose", "model.keras", "--data", "missing.npy"],
        ["calibrate", "model.keras", "--data", "missing.npz", "--out", "new.keras"],
    ]
    told = json.loads(run("-c", CODE, json.dumps(commands)).stdout)
    for command, (status, imported) in told.items():
        assert status == 2, command
        assert set(HEAVY) & set(imported) == {"numpy"}, command


def test_a_line_on_stderr_stands_before_the_import_and_the_json_on_stdout_alone(folder):
    ended = run("-m", "_initx_command", "diagnose", "model.keras", "--json", "--no-cures", "--seed", "1")
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == "initx: importing Keras and TensorFlow ...\n"
    assert json.loads(ended.stdout)["rows"][0]["path"] == "head"


def test_on_jax_a_second_line_tells_where_the_compiled_operations_are_kept(folder):
    environment = {name: text for name, text in os.environ.items() if not name.startswith("JAX_")}
    environment |= {"KERAS_BACKEND": "jax", "XDG_CACHE_HOME": str(folder)}
    options = ("diagnose", "model.keras", "--no-cures", "--seed", "1")
    ended = run("-m", "_initx_command", *options, env=environment)
    assert ended.returncode == 0, ended.stderr
    kept = folder / "keras_initx" / "jax"
    assert ended.stderr == (
        "initx: importing Keras and JAX ...\n"
        f"initx: the first run of a model compiles its operations; later runs take them from {kept}\n"
    )
    assert len(list(kept.iterdir())) > 10


@pytest.mark.parametrize(
    ("chosen", "title"),
    [({}, "TensorFlow"), ({"KERAS_BACKEND": "jax"}, "JAX"), ({"file": "torch"}, "PyTorch")],
)
def test_the_line_comes_first_and_names_the_backend_that_keras_would_take(folder, chosen, title):
    """The import itself is stopped: this is about the order, and takes no seconds."""
    code = (
        "import sys\n"
        "from _initx_command import main\n"
        "from _initx_command._main import make_parser\n"
        "make_parser()\n"  # which looks for the package's source
        "class Finder:\n"
        "    def find_spec(name, *_):\n"
        "        if name == 'keras_initx':\n"
        "            print('the import begins', flush=True)\n"
        "            raise SystemExit(7)\n"
        "sys.meta_path.insert(0, Finder)\n"
        "main(['diagnose', 'model.keras'])\n"
    )
    environment = {name: text for name, text in os.environ.items() if name != "KERAS_BACKEND"}
    environment["KERAS_HOME"] = str(folder)
    if "file" in chosen:
        (folder / "keras.json").write_text(json.dumps({"backend": chosen["file"]}))
    else:
        environment |= chosen
    ended = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    assert ended.stdout == f"initx: importing Keras and {title} ...\nthe import begins\n"
    assert ended.returncode == 7


def options_of(verb):
    """The options and positional arguments of a verb, by the names of their values."""
    (verbs,) = (
        action for action in make_parser()._actions if action.dest == "==SUPPRESS==" and action.choices
    )
    return {action.dest: action for action in verbs.choices[verb]._actions}


FUNCTIONS = {
    "initialize": [initx.initialize],
    "calibrate": [initx.calibrate],
    "coordinates": [initx.coordinates],
    "diagnose": [initx.diagnose],
    "compare": [initx.compare],
    "export": [initx.export],
    "serve": [initx.serve, serve_on_ray],
}


@pytest.mark.parametrize("verb", FUNCTIONS)
def test_an_option_has_the_default_of_the_argument_with_its_name(verb):
    options, compared = options_of(verb), set()
    for function in FUNCTIONS[verb]:
        for parameter in inspect.signature(function).parameters.values():
            if parameter.name in options and parameter.default is not parameter.empty:
                option = options[parameter.name]
                assert option.default == parameter.default, option.option_strings
                assert type(option.default) is type(parameter.default), option.option_strings
                compared.add(parameter.name)
    assert compared
    for name in compared:  # and the help text shows it
        if options[name].default is not None and not isinstance(options[name].default, bool):
            assert f"(default: {options[name].default})" in options[name].help


def test_the_defaults_in_the_source_are_those_of_the_functions():
    for functions in FUNCTIONS.values():
        for function in functions:
            room = "keras_initx.serving" if function is serve_on_ray else "keras_initx"
            parameters = inspect.signature(function).parameters.values()
            expected = {
                parameter.name: parameter.default
                for parameter in parameters
                if parameter.default is not parameter.empty and not callable(parameter.default)
            }
            found = defaults_of(f"{room}.{function.__name__}")
            assert {name: value for name, value in found.items() if not callable(value)} == expected


def test_a_default_that_is_a_name_is_left_out_and_a_missing_function_is_told(tmp_path, monkeypatch):
    (tmp_path / "some_package_of_a_test").mkdir()
    source = "LARGE = 9\ndef verb(a, b=2 * 3, /, c=LARGE, *, d, e='x', f=-1): ...\n"
    (tmp_path / "some_package_of_a_test" / "__init__.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    assert defaults_of("some_package_of_a_test.verb") == {"b": 6, "e": "x", "f": -1}
    with pytest.raises(LookupError, match="has no function other"):
        defaults_of("some_package_of_a_test.other")


def test_bash_completes_verbs_options_names_and_files(folder):
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("bash is not installed")
    (folder / "initx.bash").write_text(run("-m", "_initx_command", "--print-completion", "bash").stdout)
    for words, expected in (
        (["dia"], {"diagnose"}),
        (["show", "HeSc"], {"HeScaled"}),
        (["calibrate", "model.keras", "--initializer", "LSU"], {"LSUV"}),
        (["calibrate", "--sam"], {"--samples"}),
        (["compare", "--runner", "vec"], {"vectorized"}),
        (["diagnose", "mod"], {"model.keras"}),
    ):
        line, before = " ".join(words), ["initx", *words][-2]
        script = (
            f"source ./initx.bash; COMP_WORDS=(initx {line}); COMP_CWORD={len(words)}; "
            f"COMP_LINE='initx {line}'; COMP_POINT=${{#COMP_LINE}}; "
            f"_shtab_initx initx {words[-1]} {before}; "
            'printf "%s\\n" "${COMPREPLY[@]}"'
        )
        ended = subprocess.run([bash, "-c", script], capture_output=True, text=True, check=False)
        assert {word.strip() for word in ended.stdout.split()} == expected, (words, ended.stderr)


@pytest.mark.parametrize("shell", ["tcsh", "zsh"])
def test_other_shells_get_a_script_with_all_verbs(shell):
    script = run("-m", "_initx_command", "--print-completion", shell)
    assert script.returncode == 0, script.stderr
    assert all(verb in script.stdout for verb in VERBS)
    assert "HeScaled" in script.stdout


def test_python_m_runs_the_same_command():
    for module in ("_initx_command", "keras_initx"):
        ended = run("-m", module, "show", "ConstantFill")
        assert ended.returncode == 0, ended.stderr
        assert ended.stdout.startswith("ConstantFill, variance: ")
