"""The REST interface on real SavedModels, without a server: what each request is answered."""

import json

import pytest

from keras_initx.serving._rest import answer
from support.served_graphs import TYPES, Fixed, wait, write_all
from support.serving_vectors import ANSWERED, REFUSED

pytestmark = pytest.mark.tensorflow


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return Fixed(write_all(tmp_path_factory.mktemp("rest")), {"old": 1})


@pytest.fixture
def ask(models):
    def ask(method, path, body=""):
        found = wait(answer(method, f"/v1/models{path}", body.encode(), models))
        return found.status, json.loads(found.body)

    return ask


@pytest.mark.parametrize(("path", "body", "want"), ANSWERED)
def test_what_is_asked_is_answered(models, path, body, want):
    found = wait(answer("POST", f"/v1/models{path}", body.encode(), models))
    assert found.status == 200, found.body
    if want is None:
        assert b'{"copy": "\xc3\xa9", "raw_bytes": {"b64": "w6k="}}' in found.body
        assert b'{"copy": "\xff\\u0000", "raw_bytes": {"b64": "/wA="}}' in found.body
    else:
        assert json.loads(found.body) == want


@pytest.mark.parametrize("type_", sorted(TYPES))
def test_every_type_is_served(ask, type_):
    body = json.dumps({"signature_name": type_, "instances": TYPES[type_]})
    assert ask("POST", "/types:predict", body) == (200, {"predictions": TYPES[type_]})


def test_all_types_together(ask):
    rows = [{name: values[row] for name, values in TYPES.items()} for row in (0, 1)]
    body = json.dumps({"signature_name": "all", "instances": rows})
    assert ask("POST", "/types:predict", body) == (200, {"predictions": rows})


@pytest.mark.parametrize(("path", "body", "status", "message"), REFUSED)
def test_what_cannot_be_answered_is_an_error_with_its_status(ask, path, body, status, message):
    found, document = ask("POST", path, body)
    assert (found, sorted(document)) == (status, ["error"])
    assert message in document["error"]
    assert "Detected at node" not in document["error"]
    assert "[[" not in document["error"]


def state(version):
    return {"version": version, "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}


def test_status(ask):
    assert ask("GET", "/half") == (200, {"model_version_status": [state("1"), state("123")]})
    assert ask("GET", "/half/labels/whatever") == ask("GET", "/half")
    assert ask("GET", "/half/versions/123") == (200, {"model_version_status": [state("123")]})
    assert ask("GET", "/half/versions/9") == (404, {"error": "Could not find version 9 of model half"})
    assert ask("GET", "/foo") == (404, {"error": "Could not find any versions of model foo"})


def test_a_list_of_all_models(ask):
    status, document = ask("GET", "")
    assert status == 200
    assert [model["name"] for model in document["models"]] == ["half", "several", "types"]
    assert document["models"][0]["model_version_status"] == [state("1"), state("123")]


def test_metadata(ask):
    status, document = ask("GET", "/half/labels/old/metadata")
    assert status == 200
    assert document["model_spec"] == {"name": "half", "signature_name": "", "version": "1"}
    definitions = document["metadata"]["signature_def"]["signature_def"]
    assert definitions["serving_default"] == {
        "inputs": {
            "x": {"name": "x:0", "dtype": "DT_FLOAT", "tensor_shape": {"dim": [], "unknown_rank": True}},
        },
        "outputs": {
            "y": {"name": "add:0", "dtype": "DT_FLOAT", "tensor_shape": {"dim": [], "unknown_rank": True}},
        },
        "method_name": "tensorflow/serving/predict",
        "defaults": {},
    }
    shape = definitions["classify_x_to_y"]["outputs"]["scores"]["tensor_shape"]
    assert shape == {"dim": [{"size": "-1", "name": ""}, {"size": "1", "name": ""}], "unknown_rank": False}
    assert ask("GET", "/foo/metadata")[0] == 404
