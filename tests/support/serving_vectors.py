"""Requests of the REST interface with what they are answered, for the models of `served_graphs.write_all`.

Some follow TensorFlow Serving's own tests, in other words. The differential suite sends them to a real one.
"""

# Path under /v1/models, body, and the answer; None where it is looked at byte by byte.
ANSWERED = [
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
]
# Path, body, status, and what the error says.
REFUSED = [
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
]
