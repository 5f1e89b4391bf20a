"""The REST interface on real SavedModels, without a server: what each request is answered."""

import json

import pytest
from served_graphs import TYPES, Fixed, every_type, half_plus_two, several, wait

from keras_initx.serving._rest import answer

pytestmark = pytest.mark.tensorflow


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rest")
    half_plus_two(folder / "half" / "1")
    half_plus_two(folder / "half" / "123", add=3.0)
    every_type(folder / "types")
    several(folder / "several")
    folders = {("half", 1): folder / "half" / "1", ("half", 123): folder / "half" / "123"}
    folders |= {("types", 1): folder / "types", ("several", 1): folder / "several"}
    return Fixed(folders, {"old": 1})


@pytest.fixture
def ask(models):
    def ask(method, path, body=""):
        found = wait(answer(method, f"/v1/models{path}", body.encode(), models))
        return found.status, json.loads(found.body)

    return ask


@pytest.mark.parametrize(
    ("path", "body", "want"),
    [
        ("/half:predict", '{"instances": [1.0, 2.0]}', {"predictions": [3.5, 4.0]}),
        ("/half:predict", '{"instances": [[1.0, 2.0], [3, 4]]}', {"predictions": [[3.5, 4], [4.5, 5]]}),
        ("/half/versions/1:predict", '{"instances": [1.0, 2.0]}', {"predictions": [2.5, 3.0]}),
        ("/half/versions/00001:predict", '{"inputs": [3.0, 4.0]}', {"outputs": [3.5, 4.0]}),
        ("/half/labels/old:predict", '{"inputs": {"x": 3.0}}', {"outputs": 3.5}),
        (
            "/half/versions/123:predict",
            '{"signature_name": "serving_default", "instances": [{"x": [3.0]}]}',
            {"predictions": [[4.5]]},
        ),
        (
            "/several:predict",
            '{"instances": [{"a": [1, 2], "n": 4}]}',
            {"predictions": [{"next": 5, "sum": 3.0}]},
        ),
        (
            "/several:predict",
            '{"inputs": {"a": [[1, 2]], "n": [4]}}',
            {"outputs": {"next": [5], "sum": [3.0]}},
        ),
        ("/several:predict", '{"signature_name": "scalar", "inputs": [[1, 2]]}', {"outputs": 3.0}),
        (
            "/several:predict",
            '{"signature_name": "strings", "instances": ["é", {"b64": "/wA="}]}',
            None,
        ),
        (
            "/half:classify",
            '{"signature_name": "classify_x_to_y", "examples": [{"x": 20.0}, {"x": 10.0}]}',
            {"results": [[["", 13.0]], [["", 8.0]]]},
        ),
        (
            "/half/versions/1:classify",
            '{"signature_name": "classify_names", "context": {"x": 20.0}, "examples": [{}, {"x": 10.0}]}',
            {"results": [[["half", 12.0]], [["half", 7.0]]]},
        ),
        (
            "/half/versions/1:regress",
            '{"signature_name": "regress_x_to_y", "examples": [{"x": 80.0}]}',
            {"results": [42.0]},
        ),
    ],
)
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


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        ("/foo:predict", '{"instances": [1]}', 404, "Servable not found for request: Latest(foo)"),
        (
            "/foo/versions/5:predict",
            '{"instances": [1]}',
            404,
            "Servable not found for request: Specific(foo, 5)",
        ),
        (
            "/half/versions/9:predict",
            '{"instances": [1]}',
            404,
            "Servable not found for request: Specific(half, 9)",
        ),
        ("/half%2F..:predict", '{"instances": [1]}', 404, "Servable not found"),
        ("/half/labels/new:predict", '{"instances": [1]}', 400, "Unrecognized servable version label: new"),
        ("/half:predict", "", 400, "JSON Parse error: The document is empty"),
        ("/half:predict", "instances = [1]", 400, "JSON Parse error: Invalid value"),
        ("/half:predict", '{"signature_name": 5}', 400, "must be a string value"),
        ("/half:predict", '{"instances": ["a"]}', 400, "not of expected type: float"),
        (
            "/half:predict",
            '{"signature_name": "x", "instances": [1]}',
            400,
            'Serving signature name: "x" not found in signature def',
        ),
        (
            "/several:predict",
            '{"instances": [{"a": [1, 2, 3], "n": 1}]}',
            400,
            "input tensor alias 'a' must have shape [?,2]. Received: [1,3]",
        ),
        (
            "/several:predict",
            '{"signature_name": "scalar", "instances": [[1, 2]]}',
            400,
            "no shape information",
        ),
        (
            "/several:predict",
            '{"signature_name": "uneven", "instances": [[1, 2], [3, 4]]}',
            400,
            "inconsistent batch size",
        ),
        ("/types:predict", '{"signature_name": "half", "instances": [1]}', 501, "Conversion of JSON"),
        (
            "/half:classify",
            '{"examples": [{"x": 1.0}]}',
            400,
            "Expected classification signature method_name",
        ),
        ("/half:regress", '{"examples": [{"x": 1.0}]}', 400, "Expected regression signature method_name"),
        (
            "/half:regress",
            '{"signature_name": "y", "examples": [{}]}',
            400,
            "No signature was found with the name: y",
        ),
        (
            "/half:regress",
            '{"signature_name": "bad_regress", "examples": [{"x": 1.0}]}',
            400,
            "Expected output Tensor of DT_FLOAT",
        ),
        (
            "/half:regress",
            '{"signature_name": "no_outputs", "examples": [{"x": 1.0}]}',
            400,
            "No regression outputs",
        ),
        (
            "/half:regress",
            '{"signature_name": "regress_x_to_y", "examples": [{"x": 1}]}',
            400,
            "Data types don't match",
        ),
        ("/half:explain", "{}", 400, "Malformed request: POST /v1/models/half:explain"),
    ],
)
def test_what_cannot_be_answered_is_an_error_with_its_status(ask, path, body, status, message):
    found, document = ask("POST", path, body)
    assert (found, sorted(document)) == (status, ["error"])
    assert message in document["error"]
    assert "Traceback" not in document["error"]


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
