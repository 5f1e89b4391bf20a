"""Which signatures are batched: what a proof says, what it cannot say, and what the operator asks for."""

import hashlib
import json

import pytest

from keras_initx.serving import ServingError
from keras_initx.serving._limits import Limits
from keras_initx.serving._loaded import Signature, TensorSpec
from keras_initx.serving._row_wise import batched, limits_of

pytestmark = pytest.mark.tensorflow  # it has no backend: once, from one of the suites
GRAPH = b"a graph"


def signature(key, kind="float", shape=(None,), **facts):
    spec = TensorSpec(f"{key}:0", kind, shape)
    return key, Signature(key, "tensorflow/serving/predict", {"x": spec}, {"y": spec}, **facts)


SIGNATURES = dict(
    [
        signature("rows"),
        signature("other"),
        signature("text", "string"),
        signature("counter", writes=True),
        signature("fixed", shape=(2,)),
    ]
)
FACTS = {"batch_sizes": [1, 2, 3, 8], "max_difference": 0.0, "tolerance": 1e-4}


def proof(**changes):
    return {"format": 1, "signatures": {"rows": FACTS}} | changes


def folder_of(tmp_path, document=None, asked=None):
    (tmp_path / "assets.extra").mkdir()
    (tmp_path / "saved_model.pb").write_bytes(GRAPH)
    if document is not None:
        text = document if isinstance(document, str) else json.dumps(document)
        (tmp_path / "assets.extra" / "initx_row_wise.json").write_text(text)
    if asked is not None:
        (tmp_path / "batching_params.pbtxt").write_text(asked)
    return tmp_path


def together(path):
    return sorted(key for key, found in batched(str(path), SIGNATURES).items() if found.batched)


@pytest.mark.parametrize(
    "document",
    [
        proof(),
        proof(fingerprint=hashlib.sha256(GRAPH).hexdigest()),
        proof(signatures=dict.fromkeys(["rows", "text", "counter", "fixed", "gone"], FACTS)),
        proof(
            signatures={"rows": FACTS | {"max_difference": 1e-4}, "other": FACTS | {"max_difference": 2e-4}}
        ),
        proof(later="what a later version adds"),
    ],
)
def test_only_what_is_proven_is_batched(tmp_path, document, caplog):
    assert together(folder_of(tmp_path, document)) == ["rows"]
    assert not caplog.text


def test_without_a_proof_nothing_is_batched(tmp_path, caplog):
    assert together(folder_of(tmp_path)) == []
    assert not caplog.text


@pytest.mark.parametrize(
    ("document", "told"),
    [
        ("", "Expecting value"),
        ("[" * 100_000, "recursion"),
        ("[]", "list indices"),
        ({}, "'format'"),
        (proof(format=2), "its format is 2, not 1"),
        (
            proof(fingerprint=hashlib.sha256(b"another graph").hexdigest()),
            "it belongs to another saved_model.pb",
        ),
        (proof(signatures=["rows"]), "'list' object has no attribute 'items'"),
        (proof(signatures={"rows": {}}), "max_difference"),
        (proof(signatures={"rows": FACTS | {"tolerance": "large"}}), "'<=' not supported"),
    ],
)
def test_a_proof_that_cannot_be_believed_proves_nothing(tmp_path, document, told, caplog):
    assert together(folder_of(tmp_path, document)) == []
    assert "initx_row_wise.json proves nothing, so every request runs alone" in caplog.text
    assert told in caplog.text


@pytest.mark.parametrize(
    "facts", [{"max_difference": float("nan")}, {"tolerance": 0.5, "max_difference": 0.3}]
)
def test_a_difference_that_is_none_or_too_large_proves_nothing(tmp_path, facts):
    assert together(folder_of(tmp_path, proof(signatures={"rows": FACTS | facts}))) == []


def test_the_operator_may_ask_for_batches_of_one_version_and_is_told_what_that_risks(tmp_path, caplog):
    path = folder_of(tmp_path, proof(), asked="max_batch_size { value: 16 }")
    assert together(path) == ["counter", "other", "rows", "text"]  # all with a free first dimension
    assert "['counter', 'other', 'text']. Nobody proved" in caplog.text


def test_the_file_of_a_version_sets_its_limits(tmp_path):
    path = folder_of(tmp_path, asked="max_batch_size { value: 16 }")
    assert limits_of(str(path), Limits(max_batch_rows=4, max_queue=7)) == Limits(16, 7)
    (path / "batching_params.pbtxt").write_text("max_batch_size: 16")
    with pytest.raises(ServingError, match="batching_params.pbtxt must be the text of a BatchingParameters"):
        limits_of(str(path), Limits())
    (path / "batching_params.pbtxt").unlink()
    assert limits_of(str(path), Limits(4)) == Limits(4)
