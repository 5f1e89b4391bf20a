import json
import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest

import keras_initx
from keras_initx import initializers, strategies
from keras_initx.calibration import calibrate
from keras_initx.cli import main
from keras_initx.diagnostics import diagnose
from keras_initx.strategies import initialize
from support import forked


def run(capsys, *arguments):
    status = main(arguments)
    return status, *capsys.readouterr()


@pytest.mark.tensorflow
def test_list_has_a_row_for_each_initializer_with_family_and_need(capsys):
    status, out, _ = run(capsys, "list")
    rows = out.splitlines()
    assert status == 0
    short = [name.removeprefix("initx>") for name in initializers.names()]
    assert sorted(row.split()[0] for row in rows) == sorted([*short, *strategies.STRATEGIES])
    assert all(not row.endswith(" ") and len(row.split()) > 4 for row in rows)
    (lsuv,) = (row for row in rows if row.startswith("LSUV "))
    assert "data-dependent  shape, inputs" in lsuv


@pytest.mark.tensorflow
def test_list_as_json_says_the_same(capsys):
    _, table, _ = run(capsys, "list")
    _, out, _ = run(capsys, "list", "--json")
    rows = json.loads(out)
    assert [row["name"] for row in rows] == [line.split()[0] for line in table.splitlines()]
    told = {"name", "family", "needs", "summary", "registered"}
    assert all(set(row) == told and all(row[key] for key in told - {"registered"}) for row in rows)
    assert sorted(row["registered"] for row in rows if row["registered"]) == initializers.names()


@pytest.mark.tensorflow
@pytest.mark.parametrize("name", initializers.names())
def test_show_tells_law_reference_and_defaults_of_each(capsys, name):
    status, out, _ = run(capsys, "show", name, "--json")
    facts = json.loads(out)
    assert status == 0
    assert facts["law"]
    assert facts["reference"] or name == "initx>ConstantFill"
    assert facts["signature"].startswith("(")
    assert facts["defaults"] == json.loads(json.dumps(initializers.get(name).get_config()))


@pytest.mark.tensorflow
@pytest.mark.parametrize("name", strategies.STRATEGIES)
def test_show_tells_of_each_strategy(capsys, name):
    status, out, _ = run(capsys, "show", name, "--json")
    facts = json.loads(out)
    assert (status, facts["family"], facts["needs"]) == (0, "strategy", "model")
    assert facts["law"]
    assert facts["reference"]


@pytest.mark.tensorflow
def test_show_takes_the_registered_name_and_those_of_keras(capsys):
    assert run(capsys, "show", "initx>LSUV")[1] == run(capsys, "show", "LSUV")[1]
    status, out, _ = run(capsys, "show", "he_normal", "64x64", "--json")
    facts = json.loads(out)
    assert (status, facts["family"]) == (0, "Keras")
    assert facts["draw"]["std"] == pytest.approx((2 / 64) ** 0.5, rel=0.05)  # s.e. of 4,096 entries: 1.1 %


@pytest.mark.tensorflow
def test_version_tells_package_keras_and_backend(capsys):
    with pytest.raises(SystemExit) as info:
        main(["--version"])
    expected = f"initx {keras_initx.__version__} (Keras {keras.__version__}, {keras.backend.backend()})\n"
    assert (info.value.code, capsys.readouterr().out) == (0, expected)


def test_show_draws_a_kernel_of_the_shape(capsys):
    _, out, _ = run(capsys, "show", "HeScaled", "3x3x16,64", "--json", "--seed", "3")
    draw = json.loads(out)["draw"]
    values = np.asarray(initializers.HeScaled(seed=3)((3, 3, 16, 64)), "float64")
    assert draw["shape"] == [3, 3, 16, 64]
    assert (draw["fan_in"], draw["fan_out"]) == (144, 576)
    assert draw["std"] == pytest.approx(values.std(), rel=1e-6)
    assert sum(draw["counts"]) == values.size
    assert len(draw["edges"]) == len(draw["counts"]) + 1


@pytest.mark.tensorflow
def test_show_prints_a_histogram_whose_longest_bar_is_the_largest_count(capsys):
    status, out, _ = run(capsys, "show", "HeScaled", "256,128")
    bars = [(line.count("#"), int(line.split()[-1])) for line in out.splitlines() if " | " in line]
    assert status == 0
    assert sum(count for _, count in bars) == 256 * 128
    assert max(bars)[1] == max(count for _, count in bars)
    assert run(capsys, "show", "HeScaled", "256x128")[1] == out
    assert run(capsys, "show", "HeScaled", "256x128", "--seed", "1")[1] != out


@pytest.mark.tensorflow
@pytest.mark.parametrize("name", initializers.names())
def test_the_seed_rules_the_draw_of_each(capsys, name):
    """Those inside another initializer's config, as in ICNR's, are seeded, too."""
    first, second = (run(capsys, "show", name, "3x3x4x8", "--seed", "5") for _ in range(2))
    assert first == second


@pytest.mark.tensorflow
def test_bins_are_labelled_with_their_edges(capsys):
    _, out, _ = run(capsys, "show", "HeScaled", "256,128", "--json")
    edges = json.loads(out)["draw"]["edges"]
    _, out, _ = run(capsys, "show", "HeScaled", "256,128")
    labels = [line.split(" | ")[0].split(" to ") for line in out.splitlines() if " | " in line]
    assert [float(low) for low, _ in labels] == pytest.approx(edges[:-1], rel=5e-3)
    assert [float(high) for _, high in labels] == pytest.approx(edges[1:], rel=5e-3)


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("show", "HeScald"), "Received: 'HeScald'. Nearest: 'HeScaled'"),
        (("show", "he_norml"), "Received: 'he_norml'. Nearest: 'he_normal'"),
        (("show", "none"), "`name` must be a strategy or an initializer. Received: none"),
        (("show", "MuP", "3x3"), "`shape` is for initializers. Received: 'MuP'"),
        (("show", "HeScaled", "a,b"), "`shape` must be counts"),
        (("show", "HeScaled", ""), "`shape` must be counts"),
        (("show", "HeScaled", "3,,4"), "`shape` must be counts"),
        (("show", "HeScaled", "-1"), "`shape` must be counts"),
        (("show", "HeScaled", "\N{ARABIC-INDIC DIGIT THREE}"), "`shape` must be counts"),
        (("show", "HeScaled", "9" * 5000), "`shape` must be counts"),
        (("show", "HeScaled", "0,3"), "`shape` must hold from 1 to"),
        (("show", "HeScaled", "100000x100000"), "`shape` must hold from 1 to"),
        (("show", "Dirac", "3,4"), "receptive field for Dirac. Received: shape=(3, 4)"),
    ],
)
def test_bad_input_is_one_line_on_stderr_and_status_2(capsys, arguments, message):
    status, out, err = run(capsys, *arguments)
    assert (status, out) == (2, "")
    assert message in err
    assert err.startswith("initx: ")
    assert err.count("\n") == 1


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    "arguments", [(), ("list", "--yaml"), ("shwo",), ("show",), ("show", "ZerO", "--seed", "x")]
)
def test_what_the_parser_does_not_know_exits_with_2(capsys, arguments):
    with pytest.raises(SystemExit) as info:
        main(arguments)
    assert info.value.code == 2
    assert "usage: initx" in capsys.readouterr().err


@pytest.mark.tensorflow  # not for its backend, but to start this process in one suite of the three
def test_stdout_of_the_module_is_the_table_alone(capsys):
    result = forked.run(["-m", "keras_initx", "list"], check=True)
    assert result.stdout == run(capsys, "list")[1]


@pytest.mark.tensorflow  # not for its backend, but to start this process in one suite of the three
def test_module_runs_and_a_closed_pipe_is_no_error():
    command = [sys.executable, "-m", "keras_initx", "list"]
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        process.stdout.close()  # as `head` does when it has read enough
        err = process.stderr.read()
    assert process.returncode == 0
    assert "BrokenPipe" not in err
    assert "Traceback" not in err


@pytest.fixture
def saved(tmp_path):
    model = keras.Sequential(
        [keras.layers.Input((8, 8, 16)), keras.layers.DepthwiseConv2D(3, name="dw"), keras.layers.Flatten()]
    )
    model.save(tmp_path / "model.keras")
    return tmp_path / "model.keras"


def test_initialize_writes_the_model_and_prints_the_report(capsys, saved):
    out = saved.with_name("new.keras")
    status, table, _ = run(capsys, "initialize", str(saved), "--seed", "7", "--out", str(out))
    assert status == 0
    assert "dw" in table
    assert "drawn by by_role with seed 7" in table
    expected = keras.saving.load_model(saved)
    initialize(expected, "by_role", seed=7)
    for one, other in zip(expected.weights, keras.saving.load_model(out).weights, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(one), keras.ops.convert_to_numpy(other))


def _wide(folder, width, depth=1):
    hidden = [keras.layers.Dense(width, "relu") for _ in range(depth)]
    model = keras.Sequential([keras.layers.Input((4,)), *hidden, keras.layers.Dense(3, name="head")])
    model.save(folder / f"{width}_{depth}.keras")
    return folder / f"{width}_{depth}.keras", model


def test_initialize_from_another_model(capsys, tmp_path):
    (source, donor), (target, _) = _wide(tmp_path, 4), _wide(tmp_path, 8)
    out = tmp_path / "start.keras"
    status, table, _ = run(
        capsys, "initialize", str(target), "--from", str(source), "--width", "clone", "--out", str(out)
    )
    assert status == 0
    assert "drawn by FromModel" in table
    x = np.ones((2, 4), "float32")
    found, expected = (keras.ops.convert_to_numpy(net(x)) for net in (keras.saving.load_model(out), donor))
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.tensorflow
def test_initialize_from_a_shallower_model_with_another_initializer_for_the_rest(capsys, tmp_path):
    (source, _), (target, _) = _wide(tmp_path, 4, 2), _wide(tmp_path, 4, 4)
    arguments = ("--from", str(source), "--depth", "first", "--initializer", "zeros", "--json")
    status, out, _ = run(capsys, "initialize", str(target), *arguments, "--out", str(target))
    rows = json.loads(out)["rows"]
    assert status == 0
    assert [row["initializer"] for row in rows if row["is_kernel"]] == [
        "donor",
        "donor",
        "Zeros()",
        "Zeros()",
        "donor",
    ]


@pytest.mark.tensorflow
def test_a_donor_that_is_missing_or_wider_than_asked_is_refused_in_one_line(capsys, tmp_path):
    (source, _), (target, _) = _wide(tmp_path, 4), _wide(tmp_path, 8)
    before = target.read_bytes()
    for given, match in (("missing.keras", "`--from` must be a .keras file"), (source, "width='clone'")):
        status, _, error = run(capsys, "initialize", str(target), "--from", str(given), "--out", str(target))
        assert status == 2
        assert match in error
        assert len(error.splitlines()) == 1
    assert target.read_bytes() == before


@pytest.mark.tensorflow
def test_initialize_in_place_with_patterns_as_json(capsys, saved):
    arguments = ("--initializer", "none", "--seed", "3", "--include", "dw", "--exclude", "bias", "--json")
    status, out, _ = run(capsys, "initialize", str(saved), *arguments, "--out", str(saved))
    facts = json.loads(out)
    assert status == 0
    assert [row["path"] for row in facts["rows"]] == ["dw"]
    assert facts["seed"] == 3
    assert [path.name for path in saved.parent.iterdir()] == ["model.keras"]


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"--initializer": "by_rol"}, "Nearest: 'by_role'"),
        ({"--include": "nothing"}, "`include` must hold"),
        ({"--out": "new.h5"}, "`--out` must be a .keras file"),
        ({"--out": "missing/new.keras"}, "folder that exists"),
        ({"--seed": "-1"}, "`seed` must be"),
        ({"model": "missing.keras"}, "which is not a file"),
        ({"model": "text.keras"}, "which Keras cannot load: "),
    ],
)
def test_initialize_refuses_in_one_line_and_writes_nothing(capsys, saved, monkeypatch, change, match):
    monkeypatch.chdir(saved.parent)
    (saved.parent / "text.keras").write_text("no model")
    options = {"--out": "model.keras"} | {k: v for k, v in change.items() if k != "model"}
    before = saved.read_bytes()
    arguments = [text for pair in options.items() for text in pair]
    status, out, error = run(capsys, "initialize", change.get("model", "model.keras"), *arguments)
    assert (status, out) == (2, "")
    assert match in error
    assert error.count("\n") == 1
    assert saved.read_bytes() == before
    assert {path.name for path in saved.parent.iterdir()} == {"model.keras", "text.keras"}


@pytest.mark.parametrize("source", ["x.npy", "x.npz"])
def test_calibrate_writes_the_model_and_prints_the_report(capsys, saved, source, rng, monkeypatch):
    monkeypatch.chdir(saved.parent)
    x = rng.normal(3, 2, size=(40, 8, 8, 16)).astype("float32")
    np.save(source, x) if source == "x.npy" else np.savez(source, x=x)
    arguments = ("--data", source, "--initializer", "initx>LSUV", "--samples", "32", "--out", "new.keras")
    status, table, _ = run(capsys, "calibrate", "model.keras", *arguments)
    assert status == 0
    assert "1 of 1 kernels calibrated on 32 rows, 1 forward pass" in table
    expected = keras.saving.load_model("model.keras")
    calibrate(expected, x, samples=32)
    for one, other in zip(expected.weights, keras.saving.load_model("new.keras").weights, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(one), keras.ops.convert_to_numpy(other))


@pytest.mark.tensorflow
def test_calibrate_on_a_data_set_as_json(capsys, tmp_path):
    layers = [keras.layers.Input((8, 8, 1)), keras.layers.Conv2D(4, 3, name="c"), keras.layers.Flatten()]
    keras.Sequential(layers).save(tmp_path / "m.keras")
    arguments = ("--data", "initx_digits", "--redraw", "--seed", "1", "--json")
    path = str(tmp_path / "m.keras")
    status, out, _ = run(capsys, "calibrate", path, *arguments, "--out", path)
    assert status == 0
    assert json.loads(out)["samples"] == 256
    assert json.loads(out)["rows"][0]["std_after"] == pytest.approx(1, rel=1e-3)


@pytest.mark.tensorflow
def test_calibrate_takes_targets_and_a_loss(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(1)]).save("m.keras")
    np.save("x.npy", np.eye(3))
    np.save("y.npy", np.ones(3))
    arguments = (
        "--data",
        "x.npy",
        "--targets",
        "y.npy",
        "--loss",
        "mse",
        "--initializer",
        "initx>BetweenLayer",
    )
    status, out, error = run(capsys, "calibrate", "m.keras", *arguments, "--out", "m.keras", "--json")
    assert status == 0, error
    assert len(json.loads(out)["objective"]) == 2


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"--data": "missing.npy"}, "`--data` must be a file of numbers"),
        ({"--data": "text.npy"}, "`--data` must be a file of numbers"),
        ({"--data": "objects.npy"}, "`--data` must be a file of numbers"),
        ({"--data": "text.npz"}, "`--data` must be a file of numbers"),
        ({"--data": "wrong.npy"}, "`data` must have the structure"),
        ({"--targets": "missing.npy"}, "`--targets` must be a file of numbers"),
        ({"--initializer": "initx>GradInit"}, "`targets` must be given"),
        ({"--initializer": "initx>GradInit", "--targets": "right.npy"}, "`loss` must be given"),
        ({"--initializer": "he_normal"}, "must be a data-dependent law"),
        ({"--samples": "0"}, "`samples` must be"),
        ({"--out": "new.h5"}, "`--out` must be a .keras file"),
        ({"--data": "empty.npz"}, "`--data` must hold arrays"),
        ({"--data": "others.npz"}, "--data holds ['a', 'b']: name rows and labels x and y"),
        ({"--data": "huge.npy"}, "initx: `data` must keep every pre-activation finite"),
        ({"--data": "."}, "`--data` must be an .npy or .npz file, or name a data set"),
        ({"--data": ""}, "`--data` must be an .npy or .npz file, or name a data set"),
        ({"--loss": "nope"}, "`loss` must be the name of a Keras loss"),
    ],
)
def test_calibrate_refuses_in_one_line_and_writes_nothing(capsys, saved, monkeypatch, change, match):
    monkeypatch.chdir(saved.parent)
    for name in ("text.npy", "text.npz"):
        (saved.parent / name).write_text("no numbers")
    np.save("objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    np.save("wrong.npy", np.ones((4, 3)))
    np.save("right.npy", np.ones((4, 8, 8, 16)))
    np.save("huge.npy", 1e30 * np.ones((4, 8, 8, 16)) * np.arange(16))
    np.savez("empty.npz")
    np.savez("others.npz", a=np.ones((4, 8, 8, 16)), b=np.ones(4))
    files = {path.name for path in saved.parent.iterdir()}
    before = saved.read_bytes()
    options = {"--data": "right.npy", "--out": "model.keras"} | change
    arguments = [text for pair in options.items() for text in pair]
    status, out, error = run(capsys, "calibrate", "model.keras", *arguments)
    assert (status, out) == (2, "")
    assert match in error
    assert error.count("\n") == 1
    assert saved.read_bytes() == before
    assert {path.name for path in saved.parent.iterdir()} == files


@pytest.fixture
def dense(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    layers = [keras.layers.Input((64,)), *(keras.layers.Dense(64, "relu", name=f"d{i}") for i in range(3))]
    model = keras.Sequential(layers)
    initialize(model, "by_role", seed=1)
    model.save("model.keras")
    return model


def test_diagnose_prints_the_report(capsys, dense):
    status, table, error = run(capsys, "diagnose", "model.keras", "--seed", "1", "--samples", "32", "--check")
    assert (status, error) == (0, "")
    assert "3 kernels on 32 rows" in table
    assert "\nno verdicts; nothing is known of the learning rate" in table


def test_diagnose_reports_the_chosen_kernels(capsys, dense):
    chosen = ("--include", "d0", "--include", "d2", "--exclude", "d2", "--json", "--no-cures", "--seed", "1")
    status, out, _ = run(capsys, "diagnose", "model.keras", *chosen)
    assert status == 0
    assert [row["path"] for row in json.loads(out)["rows"]] == ["d0"]
    status, _, error = run(capsys, "diagnose", "model.keras", "--include", "nowhere")
    assert status == 2
    assert "`include` must hold" in error


@pytest.mark.tensorflow
def test_diagnose_on_data_with_targets_and_jacobian_as_json_and_picture(capsys, dense, rng):
    pytest.importorskip("matplotlib")
    np.save("x.npy", rng.normal(size=(16, 64)))
    np.save("y.npy", rng.normal(size=(16, 64)))
    arguments = (
        "--data",
        "x.npy",
        "--targets",
        "y.npy",
        "--loss",
        "mse",
        "--jacobian",
        "--plot",
        "signal.png",
    )
    status, out, _ = run(capsys, "diagnose", "model.keras", *arguments, "--json")
    facts = json.loads(out)
    assert status == 0
    assert (facts["samples"], facts["loss_name"]) == (16, "given")
    assert len(facts["jacobian"]["singular_values"]) == 64
    assert pathlib.Path("signal.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    "limits", [("--check",), ("--check", "max_gain=2", "--check", "max_dead=0.5,max_verdicts=9")]
)
def test_diagnose_fails_a_check_and_still_prints_valid_json(capsys, dense, limits):
    dense.layers[1].kernel.assign(dense.layers[1].kernel * np.nan)
    dense.save("nan.keras")
    status, out, error = run(capsys, "diagnose", "nan.keras", "--json", *limits)
    facts = json.loads(out, parse_constant=lambda name: pytest.fail(name))
    assert status == 1
    assert [row["path"] for row in facts["rows"]] == ["d0", "d1", "d2"]
    assert "d1: 100 % of its values are NaN" in error


@pytest.mark.tensorflow
def test_diagnose_leaves_out_a_limit_that_is_none(capsys, dense):
    dense.layers[1].kernel.assign(dense.layers[1].kernel * 100)
    dense.save("large.keras")
    quick = ("diagnose", "large.keras", "--no-cures", "--check")
    assert run(capsys, *quick, "max_gain=2,max_verdicts=none")[0] == 1
    assert run(capsys, *quick, "max_gain=none,max_verdicts=none")[0] == 0


@pytest.mark.tensorflow
def test_diagnose_fails_a_check_where_there_is_a_verdict_unless_it_is_allowed(capsys, tmp_path, monkeypatch):
    """Glorot's law on ReLU: each layer halves the variance, and the signal is gone at the end."""
    monkeypatch.chdir(tmp_path)
    layers = [keras.layers.Input((64,)), *(keras.layers.Dense(64, "relu", name=f"h{n}") for n in range(24))]
    model = keras.Sequential(layers)
    initialize(model, "glorot_normal", seed=1)
    model.save("stalled.keras")
    quick = (
        "diagnose",
        "stalled.keras",
        "--no-cures",
        "--seed",
        "1",
        "--check",
        "max_gain=none,max_dead=none",
    )
    status, out, error = run(capsys, *quick)
    assert status == 1
    assert "the signal shrinks by" in out
    assert "the signal shrinks by" in error
    assert run(capsys, *quick, "--allow", "forward")[0] == 1
    assert run(capsys, *quick, "--allow", "forward", "--allow", "backward")[0] == 0


@pytest.mark.tensorflow
def test_diagnose_builds_a_model_by_name_without_weights(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = (
        "import keras\n"
        "def build(weights='downloaded', input_shape=(4,)):\n"
        "    assert weights is None\n"
        "    return keras.Sequential([keras.layers.Input(input_shape), keras.layers.Dense(2, name='head')])\n"
        "def broken(): raise RuntimeError('no luck')\n"
        "def other(): return 3\n"
    )
    pathlib.Path("some_models.py").write_text(code)
    status, out, _ = run(
        capsys, "diagnose", "some_models:build", "--input-shape", "7", "--jacobian", "--json"
    )
    facts = json.loads(out)
    assert status == 0
    assert facts["rows"][0]["path"] == "head"
    assert facts["jacobian"]["inputs"] == 7
    for name, match in (("broken", "no luck"), ("other", "returns int"), ("missing", "has no attribute")):
        status, out, error = run(capsys, "diagnose", f"some_models:{name}")
        assert (status, out, error.count("\n")) == (2, "", 1)
        assert match in error


@pytest.mark.tensorflow
@pytest.mark.slow
def test_diagnose_builds_resnet(capsys):
    arguments = ("--samples", "4", "--input-shape", "64x64x3", "--seed", "1", "--json")
    status, out, _ = run(capsys, "diagnose", "keras.applications:ResNet50", *arguments)
    assert status == 0
    assert len(json.loads(out)["rows"]) == 54


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"model": "missing.keras"}, "which is not a file"),
        ({"model": "no_such_module:build"}, "No module named"),
        ({"model": "keras.applications:ResNet5"}, "ResNet5"),
        ({"--input-shape": "8x8"}, "`--input-shape` is for models by name"),
        ({"--input-shape": "8;8"}, "`--input-shape` must be counts"),
        ({"--data": "missing.npy"}, "`--data` must be a file of numbers"),
        ({"--targets": "missing.npy"}, "`--targets` must be a file of numbers"),
        ({"--loss": "squared"}, "squared"),
        ({"--samples": "0"}, "`samples` must be"),
        ({"--seed": "-1"}, "`seed` must be"),
        ({"--check": "max_gian=2"}, "`--check` must be limits and numbers"),
        ({"--check": "max_gain=two"}, "`--check` must be limits and numbers"),
        ({"--check": "max_gain=0.5"}, "`max_gain` must be at least 1"),
        ({"--check": "max_dead=-1"}, "`max_dead` must be"),
        ({"--check": "", "--allow": "small"}, "`--allow` must be a kind of verdict"),
        ({"--allow": "dead"}, "Received: dead without --check"),
        ({"--plot": "signal.doc"}, "`--plot` must be a file"),
        ({"--plot": "missing/signal.png"}, "`--plot` must be a file in a folder"),
    ],
)
def test_diagnose_refuses_in_one_line(capsys, dense, change, match):
    options = [text for name, value in change.items() if name != "model" for text in (name, value)]
    if "--loss" in change:
        np.save("y.npy", np.ones((64, 64)))
        options += ["--targets", "y.npy"]
    status, out, error = run(capsys, "diagnose", change.get("model", "model.keras"), *options)
    assert (status, out) == (2, "")
    assert match in error
    assert error.count("\n") == 1


@pytest.mark.tensorflow
@pytest.mark.parametrize("out", ["m.keras", "new.keras"])
def test_an_interrupted_search_does_not_overwrite_its_model(capsys, tmp_path, monkeypatch, out):
    monkeypatch.chdir(tmp_path)
    keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(1)]).save("m.keras")
    np.save("x.npy", np.eye(3))
    before = (tmp_path / "m.keras").read_bytes()

    def search(self, task):
        yield np.full(len(task.weights), 0.5), (0.0,)
        raise KeyboardInterrupt

    monkeypatch.setattr("keras_initx.initializers.BetweenLayer.search", search)
    arguments = ("--data", "x.npy", "--initializer", "initx>BetweenLayer", "--out", out)
    status, table, error = run(capsys, "calibrate", "m.keras", *arguments)
    assert status == 130
    assert (tmp_path / "m.keras").read_bytes() == before
    if out == "m.keras":
        assert (table, error) == ("", "initx: interrupted; nothing was written\n")
    else:
        assert "interrupted" in table
        assert (tmp_path / out).is_file()


@pytest.mark.tensorflow
def test_a_folder_that_cannot_be_written_is_refused_before_the_work(capsys, saved, monkeypatch):
    monkeypatch.setattr("os.access", lambda *_: False)
    status, _, error = run(capsys, "initialize", str(saved), "--out", str(saved))
    assert status == 2
    assert "`--out` must be a file that can be written" in error


def two_inputs():
    inputs = [keras.layers.Input((3,), name=name) for name in ("y", "x")]
    dense = [keras.layers.Dense(2, name=f"of_{tensor.name}")(tensor) for tensor in inputs]
    return keras.Model(inputs, keras.layers.Add()(dense))


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    ("source", "data"),
    [
        ("pair.npz", ("x", "y")),
        ("triple.npz", ("x", "y", "sample_weight")),
        ("x.npy", ("x",)),
        ("none", ()),
        ("None", ()),
    ],
)
def test_data_means_the_same_to_calibrate_and_diagnose(capsys, dense, rng, source, data):
    x, y = rng.normal(3, 2, size=(40, 64)), rng.normal(size=(40, 64))
    np.save("x.npy", x)
    np.savez("pair.npz", x=x, y=y)
    np.savez("triple.npz", x=x, y=y, sample_weight=np.ones(40))
    dense.compile("sgd", "mse")
    dense.save("model.keras")
    given = {0: None, 1: x, 2: (x, y), 3: (x, y, np.ones(40))}[len(data)]
    status, out, error = run(capsys, "diagnose", "model.keras", "--data", source, "--seed", "1", "--json")
    assert (status, error) == (0, "")
    expected = diagnose(dense, given, seed=1)
    facts = json.loads(out)
    assert facts["loss_name"] == expected.loss_name == ("compiled" if len(data) > 1 else "random projection")
    assert facts["loss"] == pytest.approx(expected.loss, rel=1e-5)
    arguments = ("--data", source, "--initializer", "none", "--seed", "1", "--samples", "32", "--json")
    status, out, error = run(capsys, "calibrate", "model.keras", *arguments, "--out", "new.keras")
    assert (status, error) == (0, "")
    expected = calibrate(dense, given, "none", samples=32, seed=1)
    scales = [row["scale"] for row in json.loads(out)["rows"]]
    assert scales == pytest.approx([row.scale for row in expected.rows], rel=1e-5)


@pytest.mark.tensorflow
def test_inputs_that_are_called_x_and_y_are_no_pair(capsys, tmp_path, monkeypatch, rng):
    monkeypatch.chdir(tmp_path)
    two_inputs().save("m.keras")
    np.savez("both.npz", x=rng.normal(0, 10, (64, 3)), y=rng.normal(0, 0.1, (64, 3)))
    arguments = ("--data", "both.npz", "--out", "new.keras", "--json")
    status, out, _ = run(capsys, "calibrate", "m.keras", *arguments)
    scale = {row["path"]: row["scale"] for row in json.loads(out)["rows"]}
    assert status == 0
    assert scale["of_x"] < 1 < scale["of_y"]


MODULE = """
import keras

@keras.saving.register_keras_serializable("theirs")
class Twice(keras.layers.Dense):
    def call(self, x):
        return 2 * super().call(x)

def save(path, wrapped):
    layer = Twice(3, name="twice")
    layer = keras.layers.TimeDistributed(layer) if wrapped else layer
    keras.Sequential([keras.layers.Input((5, 4) if wrapped else (4,)), layer]).save(path)
"""


@pytest.mark.tensorflow  # for the process that it starts: one suite of three
def test_import_brings_the_classes_of_a_file_and_its_lack_is_told_with_the_cure(tmp_path):
    """In processes of their own: here, the class would stay registered."""
    (tmp_path / "their_layers.py").write_text(MODULE)
    code = (
        "import sys; sys.path.append('.')\n"
        "from keras_initx.cli import main\n"
        "for name in ('plain', 'wrapped'):\n"
        "    print(main(['diagnose', f'{name}.keras']))\n"
        "    print(main(['diagnose', f'{name}.keras', '--import', 'their_layer']))\n"
        "    print(main(['compare', f'{name}.keras', '--data', 'd.npz', '--initializers', 'zeros']))\n"
        "print(main(['diagnose', 'wrapped.keras', '--import', 'their_layers', '--json']))\n"
    )
    make = "from their_layers import save; save('plain.keras', 0); save('wrapped.keras', 1)"
    np.savez(tmp_path / "d.npz", x=np.ones((10, 4)), y=np.ones((10, 3)))
    found = []
    for text in (make, code):
        found.append(forked.run(["-c", text], cwd=tmp_path, check=True))
    lines = found[1].stdout.splitlines()
    assert lines[:6] == ["2"] * 6
    assert lines[-1] == "0"
    told = [line for line in found[1].stderr.splitlines() if line.startswith("initx:")]
    assert len(told) == 6
    for missing in (told[0], told[2], told[3], told[5]):
        assert "the class 'Twice' is not known here. By `--import`, name the module" in missing
    assert "Received: 'their_layer': ModuleNotFoundError: No module named 'their_layer'. Run the" in told[1]


LAYERS = """
import keras

@keras.saving.register_keras_serializable("theirs")
class Half(keras.layers.Layer):
    def build(self, shape):
        self.mixing = self.add_weight(shape=(shape[-1], 4), name="mixing")

    def call(self, x):
        return x @ self.mixing / 2
"""
SAVE = """
import keras
from theirs import activations, layers

head = keras.layers.Dense(1, activations.cubed, name="head")
model = keras.Sequential([keras.layers.Input((4,)), layers.Half(name="own"), head])
model.compile("sgd", "mse")
model.save("m.keras")
"""
ACTIVATIONS = """
import keras
from . import layers  # a relative import, as in a package

@keras.saving.register_keras_serializable("more")
def cubed(x):
    return x**3
"""
VERBS = [
    ("diagnose", "m.keras"),
    ("initialize", "m.keras", "--out", "new.keras"),
    ("calibrate", "m.keras", "--out", "new.keras"),
    ("compare", "m.keras", "--data", "d.npz", "--initializers", "zeros,none", "--seeds", "1"),
    ("export", "m.keras", "exported"),
]
IMPORTS = ("--import", "theirs.layers", "--import", "theirs.activations")


@pytest.mark.tensorflow  # for the processes that it starts: one suite of three
def test_every_verb_that_reads_a_model_imports_the_modules_of_a_package_first(tmp_path):
    package = tmp_path / "theirs"
    package.mkdir()
    for name, text in (("__init__", ""), ("layers", LAYERS), ("activations", ACTIVATIONS)):
        (package / f"{name}.py").write_text(text)
    np.savez(tmp_path / "d.npz", x=np.ones((10, 4), "float32"), y=np.ones((10, 1), "float32"))
    forked.run(["-c", "import sys; sys.path.append('.')\n" + SAVE], cwd=tmp_path, check=True)
    for words in VERBS:
        code = f"from keras_initx.cli import main; raise SystemExit(main({[*words, *IMPORTS]}))"
        found = forked.run(["-c", code], cwd=tmp_path)
        assert found.returncode == 0, (words, found.stderr)
        assert "own" in found.stdout or words[0] in ("compare", "export"), words


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    ("module", "message"),
    [
        ("broken", "ZeroDivisionError: division by zero. `python -c 'import broken'` shows where"),
        ("leaves", "SystemExit: 3. `python -c 'import leaves'` shows where"),
        ("broken.py", "Name the module, not its file: broken."),
        ("./sub/broken.py", "Name the module, not its file: sub.broken."),
        ("nowhere.layers", "No module named 'nowhere'. Run the command in the folder that holds"),
    ],
)
def test_a_module_that_cannot_be_imported_is_refused_with_the_cure(
    module, message, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "broken.py").write_text("1 / 0\n")
    (tmp_path / "leaves.py").write_text("raise SystemExit(3)\n")
    (tmp_path / "m.keras").write_text("a file")
    status, _, error = run(capsys, "diagnose", "m.keras", "--import", module)
    assert status == 2
    told = f"`--import` must name a module that can be imported from here. Received: {module!r}: "
    assert told in error
    assert message in error
