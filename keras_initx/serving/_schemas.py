"""JSON Schemas for the requests and answers of the REST interface."""

from typing import Any

__all__ = ["reference", "schemas"]


def schemas() -> dict[str, Any]:
    """Returns all schemas by name."""
    tensor = {
        "description": "A value, or nested lists with a level for each dimension. A float may be any number, "
        'NaN, Infinity or -Infinity. An integer has no fraction. A string may also be {"b64": ...}.',
        "anyOf": [
            {"type": ["number", "string", "boolean"]},
            reference("Base64"),
            {"type": "array", "items": reference("Tensor")},
        ],
    }
    word = {"type": "string", "description": "Empty for serving_default.", "default": "serving_default"}
    named = {"type": "object", "additionalProperties": reference("Tensor")}
    rows = {
        "description": "A value for each row if there is one input; otherwise objects with all inputs.",
        "type": "array",
        "minItems": 1,
        "items": {"anyOf": [reference("Tensor"), named]},
    }
    columns = {
        "description": "The tensor of the only input, or tensors by name. Unknown names are ignored.",
        "anyOf": [reference("Tensor"), named],
    }
    request = {
        "type": "object",
        "description": "Rows (`instances`) or columns (`inputs`), not both. With rows, every tensor's first "
        "dimension counts them.",
        "properties": {"signature_name": word, "instances": rows, "inputs": columns},
        "oneOf": [{"required": ["instances"]}, {"required": ["inputs"]}],
        "examples": [{"instances": [1.0, 2.0, 5.0]}],
    }
    return {
        "Base64": _object({"b64": {"type": "string", "contentEncoding": "base64"}}),
        "Tensor": tensor,
        "PredictRequest": request,
        **_examples(word),
        **_answers(),
        **_states(),
    }


def _examples(word: dict[str, Any]) -> dict[str, Any]:
    value = {"anyOf": [{"type": ["number", "string", "boolean"]}, reference("Base64")]}
    return {
        "Example": {
            "description": "The features of a tf.train.Example: 1 is an integer, 1.0 a float.",
            "type": "object",
            "additionalProperties": {"anyOf": [value, {"type": "array", "items": value}]},
        },
        "ExamplesRequest": {
            "type": "object",
            "required": ["examples"],
            "properties": {
                "signature_name": word,
                "context": reference("Example") | {"description": "Features that every example has."},
                "examples": {"type": "array", "minItems": 1, "items": reference("Example")},
            },
            "examples": [{"signature_name": "classify", "examples": [{"x": 1.0}]}],
        },
    }


def _answers() -> dict[str, Any]:
    named = {"type": "object", "additionalProperties": reference("Tensor")}
    either = {"anyOf": [reference("Tensor"), named]}
    # `prefixItems` would be more exact, but tools for OpenAPI 3.0 misread it.
    pair = {
        "description": "[label, score]; the label is empty if the signature returns no labels.",
        "type": "array",
        "items": {"type": ["string", "number"]},
        "minItems": 2,
        "maxItems": 2,
    }
    return {
        "Predictions": {
            "description": "For `instances`: `predictions`, a value for each row. For `inputs`: `outputs`.",
            "oneOf": [
                _object({"predictions": {"type": "array", "items": either}}),
                _object({"outputs": either}),
            ],
        },
        "Classes": _object({"results": {"type": "array", "items": {"type": "array", "items": pair}}}),
        "Numbers": _object({"results": {"type": "array", "items": {"type": "number"}}}),
        "Error": _object({"error": {"type": "string"}}),
    }


def _states() -> dict[str, Any]:
    error = {"error_code": {"type": "string", "examples": ["OK"]}, "error_message": {"type": "string"}}
    states = ["UNKNOWN", "START", "LOADING", "AVAILABLE", "UNLOADING", "END"]
    version = {"type": "string", "pattern": "^[0-9]+$"}
    state = {"version": version, "state": {"enum": states}, "status": _object(error)}
    several = {"type": "array", "items": reference("VersionStatus")}
    named = {"name": {"type": "string"}, "model_version_status": several}
    model = _object(named)
    model["properties"] |= {"error": {"type": "string", "description": "Why the model has no version."}}
    specification = {"name": {"type": "string"}, "signature_name": {"type": "string"}, "version": version}
    signatures = {"signature_def": {"type": "object", "additionalProperties": {"type": "object"}}}
    return {
        "VersionStatus": _object(state),
        "Status": _object({"model_version_status": several}),
        "Models": _object({"models": {"type": "array", "items": model}}),
        "Metadata": _object(
            {
                "model_spec": _object(specification),
                "metadata": _object({"signature_def": {"type": "object", "properties": signatures}}),
            }
        ),
        "Health": _object({"status": {"const": "ok"}}),
        "Description": {"type": "object", "required": ["openapi"]},
    }


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    """Returns the schema of an object with exactly these properties."""
    return {
        "type": "object",
        "required": list(properties),
        "properties": properties,
        "additionalProperties": False,
    }


def reference(name: str) -> dict[str, Any]:
    """Returns a reference to the schema of that name."""
    return {"$ref": f"#/components/schemas/{name}"}
