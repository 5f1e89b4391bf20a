"""Which signatures a server may batch: only those whose answers never differ from the answer alone."""

import json

import keras
import numpy as np
import pytest
from keras import layers

import keras_initx as initx
from keras_initx.saved_model import _row_wise, _rows, inspect, prove_row_wise
from keras_initx.saved_model._differences import tolerance_of
from support import exported_models, row_wise_models

pytestmark = pytest.mark.tensorflow
FILE = "assets.extra/initx_row_wise.json"
STREAM = np.random.default_rng(0)


@pytest.mark.parametrize("name", row_wise_models.NOT_ROW_WISE)
def test_a_model_whose_rows_meet_is_not_proven(tmp_path, name):
    build, reason = row_wise_models.NOT_ROW_WISE[name]
    assert initx.export(build(), tmp_path).row_wise == ()
    found = inspect(tmp_path).versions[0]
    assert found.row_wise == ()
    assert set(found.alone) == {"serve", "serving_default"}
    assert reason in found.alone["serve"]


@pytest.mark.parametrize("name", row_wise_models.ROW_WISE)
def test_a_model_whose_rows_never_meet_is_proven(tmp_path, name):
    exported = initx.export(row_wise_models.ROW_WISE[name](), tmp_path)
    assert exported.row_wise == ("serve", "serving_default"), inspect(tmp_path)
    proof = json.loads((tmp_path / "1" / FILE).read_text())["signatures"]["serving_default"]
    assert {1, 2, 3, 8} <= set(proof["batch_sizes"])
    assert 0 <= proof["max_difference"] <= proof["tolerance"] <= 0.1


def proven(function, kinds=("zeros", "large"), rows=None, seconds=0.0):
    """What `prove` says of a NumPy function, without the values that hardly any leak survives."""
    import tensorflow as tf

    specs = [tf.TensorSpec([None, 3], tf.float32, "x")]
    rows = exported_models.floats(4, 3) if rows is None else rows
    chosen = {kind: value for kind, value in _rows._FLOATS.items() if kind in kinds}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_rows, "_FLOATS", chosen)
        return _row_wise.prove(
            lambda requests: [(_answer(function, feeds["x"]), seconds) for _, feeds in requests],
            "f",
            specs,
            [rows],
            (),
            tolerance_of(),
        )


def _answer(function, x):
    try:
        with np.errstate(all="ignore"):
            return {"y": np.asarray(function(x))}
    except ValueError as error:
        return f"ValueError: {error}"


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda x: x - 1e-6 * x.mean(0), "its output `y` of a row differs by"),
        (lambda x: np.sort(x, 0), "differs by"),
        (lambda x: x[::-1], "differs by"),
        (lambda x: np.cumsum(x, 0), "differs by"),
        (lambda x: x + (np.abs(x).max() > 100), "differs by"),
        (lambda x: x + (len(x) > 100), "differs by"),
        (lambda x: x + (np.arange(len(x)) > 20)[:, None], "differs by"),
        (lambda x: x + float(len(np.unique(x[:, 0])) < len(x)), "differs by"),
        (lambda x: np.argsort(np.argsort(x[:, 0])), "of a row changes"),
        (lambda x: (x > x.mean()).astype("int32"), "of a row changes"),
        (lambda x: x[:, : 1 + int(np.abs(x).max()) % 3], "the shape of its output `y` depends"),
        (lambda x: x[:1], "does not have one row for each row"),
        (lambda x: x.sum(), "does not have one row for each row"),
        (lambda x: np.ones_like(x), "its output `y` hardly depends on the rows"),
        (lambda x: x + STREAM.random(), "it keeps a state or draws at random"),
        (lambda x: 1 / 0 if len(x) == 8 else x, "raise together ValueError: a"),
        (lambda x: 1 / 0, "a row alone raised ValueError: a"),
    ],
)
def test_each_way_in_which_rows_meet_is_found_by_finite_numbers(function, reason):
    def fails(x):
        try:
            return function(x)
        except ZeroDivisionError:
            raise ValueError("a\nb") from None

    found = proven(fails)
    assert isinstance(found, str)
    assert reason in found


def test_rounding_of_batches_is_no_difference_and_is_told():
    found = proven(lambda x: x * np.float32(1 + 1e-7 * len(x)), _rows._FLOATS)
    assert found.batch_sizes == (1, 2, 3, 8, 33, 128)
    assert 1e-6 < found.max_difference < 1e-4
    assert isinstance(proven(lambda x: x * np.float32(1 + 1e-5 * len(x))), str)


def test_kernels_chosen_by_the_size_of_a_batch_may_round_otherwise_and_nothing_of_a_row_may_hide_in_it():
    def rounded(x):
        """Inputs that round otherwise for one row, as in oneDNN's convolutions, in a model that is steep."""
        return np.sin(300 * x * np.float32(1 + 5e-6 * (len(x) > 1)))

    assert 1e-4 < proven(rounded, _rows._FLOATS).max_difference < 1e-2
    assert isinstance(proven(lambda x: x * np.float32(1 + 1e-3 * (len(x) > 1)), _rows._FLOATS), str)
    leaks = [
        lambda x: rounded(x) + 3e-3 * np.tanh(np.nan_to_num(x).mean()),
        lambda x: rounded(x) + 3e-3 * (np.nan_to_num(x) == np.nan_to_num(x).max(0)),
        lambda x: rounded(x) * (1 + 3e-3 * (np.isnan(x).any() and ~np.isnan(x))),
    ]
    for leak in leaks:
        assert "of a row differs by" in proven(leak, _rows._FLOATS)


def test_nan_of_one_row_in_another_is_found_and_in_its_own_is_none():
    def mixed_by_zeros(x):
        return np.eye(len(x), dtype="float32") @ x

    assert "of a row changes" in proven(mixed_by_zeros, ["nan"])
    assert "of a row changes" in proven(mixed_by_zeros, ["inf"])
    assert not isinstance(proven(mixed_by_zeros), str)
    assert not isinstance(proven(lambda x: x * 2, _rows._FLOATS), str)


def test_what_would_take_minutes_to_prove_is_not_proven():
    asked = []
    found = proven(lambda x: asked.append(x) or x * 2, seconds=1.5)
    assert "a row takes 1.5 s, too long to try it beside others" in found
    assert len(asked) == 2
    assert not isinstance(proven(lambda x: x * 2, seconds=0.5), str)


def test_rows_that_fail_alone_are_left_out():
    def refuses(x):
        if not np.isfinite(x).all():
            raise ValueError("finite")
        return x * 2

    assert not isinstance(proven(refuses, _rows._FLOATS), str)


def test_signatures_of_strings_are_never_proven_and_each_of_its_own_is_told(tmp_path):
    model, _ = exported_models.dense()
    exported = initx.export(
        model,
        tmp_path,
        labels=["a", "b", "c"],
        signatures={
            "twice": lambda x: model(x) * 2,
            "centred": (lambda x: x - keras.ops.mean(x, 0), [keras.InputSpec("float32", (None, 3))]),
            "product": (lambda left, right: left @ right, [keras.InputSpec("float32", (None, 3))] * 2),
            "two": (lambda x: x * 2, [keras.InputSpec("float32", (2, 3))]),
        },
    )
    assert exported.row_wise == ("serve", "serving_default", "twice")
    version = inspect(tmp_path).versions[0]
    assert version.row_wise == exported.row_wise
    assert version.alone.keys() == {"centred", "classify", "product", "two"}
    assert version.alone["classify"] == "it takes strings"
    assert version.alone["product"] == "no rows are known that it takes"
    assert version.alone["two"] == "its inputs do not have a free number of rows"
    lines = str(version).splitlines()
    place = next(number for number, line in enumerate(lines) if line.startswith("  classify ("))
    assert lines[place + 1] == "    not row-wise: it takes strings"
    assert (
        lines[next(n for n, line in enumerate(lines) if line.startswith("  twice (")) + 1] == "    row-wise"
    )
    found = json.loads((tmp_path / "1" / FILE).read_text())
    assert found["format"] == 1
    assert sorted(found["signatures"]) == list(exported.row_wise)
    for proof in found["signatures"].values():
        assert proof.keys() == {"batch_sizes", "max_difference", "tolerance"}


def test_a_model_that_exists_is_proven_in_its_folder(tmp_path):
    keras.Sequential([layers.Input((4,)), layers.Dense(2)]).export(tmp_path / "m" / "1", verbose=False)
    version = inspect(tmp_path / "m").versions[0]
    assert version.row_wise == ()
    assert "call prove_row_wise" in version.alone["serve"]
    assert prove_row_wise(tmp_path / "m" / "1") == ("serve", "serving_default")
    assert inspect(tmp_path / "m").versions[0].row_wise == ("serve", "serving_default")
    assert [file.name for file in (tmp_path / "m" / "1" / "assets.extra").iterdir()] == [
        "initx_row_wise.json"
    ]
    proof = (tmp_path / "m" / "1" / FILE).read_text()
    (tmp_path / "m" / "1" / FILE).write_text(proof.replace('"fingerprint": "', '"fingerprint": "0'))
    assert "it belongs to another saved_model.pb" in inspect(tmp_path / "m").versions[0].alone["serve"]
    (tmp_path / "m" / "1" / FILE).write_text("{")
    version = inspect(tmp_path / "m").versions[0]
    assert (version.row_wise, version.error) == ((), "")
    assert version.alone["serve"].startswith("initx_row_wise.json cannot be read: JSONDecodeError")
    (tmp_path / "m" / "1" / "saved_model.pb").write_bytes(b"")
    for path in (tmp_path / "m", tmp_path / "none"):
        with pytest.raises(ValueError, match="`path` must be the folder of a version, with saved_model.pb"):
            prove_row_wise(path)
    with pytest.raises(ValueError, match="`path` must be a SavedModel that can be loaded"):
        prove_row_wise(tmp_path / "m" / "1")
