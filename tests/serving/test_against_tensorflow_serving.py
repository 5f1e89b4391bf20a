r"""The same requests to a real TensorFlow Serving and to this package: the same answers.

It needs one that serves the models of `tests/support/served_graphs.py`, and its addresses:

    PYTHONPATH=tests python -m support.served_graphs /tmp/models
    docker run -d -p 127.0.0.1:8501:8501 -p 127.0.0.1:8500:8500 -v /tmp/models:/models tensorflow/serving \
        --model_config_file=/models/models.config --allow_version_labels_for_unavailable_models
    TFS_URL=http://127.0.0.1:8501 TFS_GRPC=127.0.0.1:8500 \
        python -m pytest tests/serving/test_against_tensorflow_serving.py
"""

import json
import os

import numpy as np
import pytest
import requests

from keras_initx.serving._errors import ServingError
from keras_initx.serving._loaded import DTYPES
from keras_initx.serving._rest import answer
from keras_initx.serving._rpc import METHODS
from support.served_graphs import TYPES, Fixed, wait, write_all
from support.serving_vectors import ANSWERED, REFUSED

URL, GRPC = os.environ.get("TFS_URL"), os.environ.get("TFS_GRPC")
pytestmark = [
    pytest.mark.tensorflow,
    pytest.mark.skipif(not (URL and GRPC), reason="TFS_URL and TFS_GRPC name no TensorFlow Serving"),
]
ROWS = [
    ("/types:predict", json.dumps({"signature_name": type_, "instances": values}))
    for type_, values in TYPES.items()
]
POSTS = [*((path, body) for path, body, *_ in (*ANSWERED, *REFUSED)), *ROWS]
GETS = ["/half", "/half/versions/1", "/half/versions/9", "/half/metadata", "/half/labels/old/metadata", "/no"]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return Fixed(write_all(tmp_path_factory.mktemp("ours")), {"old": 1})


def same(ours, theirs):
    assert ours.status == theirs.status_code, theirs.text
    # A parser for both: NaN is a token in them, and equal to nothing.
    read = [json.loads(body, parse_constant=str) for body in (ours.body, theirs.content)]
    if ours.status == 200:
        assert read[0] == read[1]
    else:
        assert [list(document) for document in read] == [["error"], ["error"]]


@pytest.mark.parametrize(("path", "body"), POSTS)
def test_a_post(models, path, body):
    ours = wait(answer("POST", f"/v1/models{path}", body.encode(), models))
    if b"\xff" in ours.body:
        pytest.skip("no parser reads it")
    same(ours, requests.post(f"{URL}/v1/models{path}", data=body.encode(), timeout=30))


@pytest.mark.parametrize("path", GETS)
def test_a_get(models, path):
    ours = wait(answer("GET", f"/v1/models{path}", b"", models))
    same(ours, requests.get(f"{URL}/v1/models{path}", timeout=30))


@pytest.mark.parametrize(
    "change", ["", "extra", "missing", "dtype", "signature", "model", "version", "filter"]
)
@pytest.mark.parametrize("type_", sorted(TYPES))
def test_predict_over_grpc(models, type_, change):
    import grpc
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

    request = predict_pb2.PredictRequest()
    request.model_spec.name = "no" if change == "model" else "types"
    request.model_spec.signature_name = "no" if change == "signature" else type_
    if change == "version":
        request.model_spec.version.value = 7
    if change == "filter":
        request.output_filter.append("no")
    values = [value.encode() for value in TYPES[type_]] if type_ == "string" else TYPES[type_]
    tensor = np.zeros(2, np.complex64) if change == "dtype" else np.array(values, DTYPES[type_])
    for name in {"extra": ("x", "z"), "missing": ()}.get(change, ("x",)):
        request.inputs[name].CopyFrom(tf.make_tensor_proto(tensor))
    try:
        path = "/tensorflow.serving.PredictionService/Predict"
        found = wait(METHODS[path](request.SerializeToString(), models))
        ours = predict_pb2.PredictResponse.FromString(found)
    except ServingError as error:
        ours = error.code
    stub = prediction_service_pb2_grpc.PredictionServiceStub(grpc.insecure_channel(GRPC))
    try:
        theirs = stub.Predict(request, 30)
    except grpc.RpcError as error:
        theirs = error.code().name
    assert ours == theirs
