"""The description of the REST interface: valid, whole, and kept by the server whatever it is sent."""

import copy
import json

import hypothesis
import pytest
import requests
import schemathesis
from hypothesis import strategies
from schemathesis.specs.openapi import checks

from keras_initx.serving._openapi import openapi
from keras_initx.serving._routes import parse_route
from support.served_graphs import TYPES
from support.served_page import serving, write_models

pytestmark = pytest.mark.tensorflow

PATHS = openapi()["paths"]
ROUTES = [(method, path) for path, item in PATHS.items() for method in item if method != "parameters"]
GIVEN = {"model": "digits", "version": "1", "label": "stable"}
# Names that are served as often as those that are made up.
SERVED = {"model": ["half", "several", "types"], "version": [1, 123], "label": ["old"]}
CHECKS = [
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
]


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    write_models(root)
    with serving(root) as address:
        yield address


@pytest.fixture(scope="module")
def description(served):
    return schemathesis.openapi.from_url(f"{served}/openapi.json")


def test_it_is_valid_and_names_each_operation_once():
    schemathesis.openapi.from_dict(openapi()).validate()
    names = [PATHS[path][method]["operationId"] for method, path in ROUTES]
    assert len(set(names)) == len(names) == 21
    broken = copy.deepcopy(openapi())
    del broken["paths"]["/v1/models"]["get"]["responses"]["200"]["description"]
    with pytest.raises(Exception, match="description"):
        schemathesis.openapi.from_dict(broken).validate()


def test_every_route_of_the_protocol_is_there():
    found = set()
    for method, path in ROUTES:
        if path.startswith("/v1/"):
            route = parse_route(method.upper(), path.format(**GIVEN))
            assert PATHS[path][method]["operationId"].startswith(route.verb)
            found.add((route.verb, route.version is not None, route.label is not None))
    choices = ((False, False), (True, False), (False, True))
    verbs = ("predict", "classify", "regress", "status", "metadata")
    assert found == {("list", False, False)} | {(verb, *choice) for verb in verbs for choice in choices}


def test_references_lead_somewhere():
    document = openapi()

    def follow(node):
        if isinstance(node, dict):
            if "$ref" in node:
                found = document
                for part in node["$ref"].removeprefix("#/").split("/"):
                    found = found[part]
            node = list(node.values())
        for part in node if isinstance(node, list) else []:
            follow(part)

    follow(document)


def test_what_json_cannot_say_is_named(served):
    answer = requests.post(
        f"{served}/v1/models/half:predict", data='{"instances": [NaN, -Infinity]}', timeout=20
    )
    assert "[NaN, -Infinity]" in " ".join(answer.text.split()).replace("[ ", "[").replace(" ]", "]")
    assert "NaN" in openapi()["info"]["description"]


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_answers_are_those_described_whatever_is_sent(served, description, method, path):
    operation = description[path][method.upper()]
    names = [name for name in GIVEN if f"{{{name}}}" in path]
    modes = (schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE)
    served_names = strategies.fixed_dictionaries(
        {name: strategies.sampled_from(SERVED[name]) for name in names}
    )

    def cases(choice):
        mode, given = choice
        return operation.as_strategy(mode, path_parameters=given)

    # Without parameters and without a body there is nothing to get wrong.
    usable = modes if names else modes[:1]
    choices = strategies.tuples(strategies.sampled_from(usable), strategies.none() | served_names)
    if method == "get":  # with all parameters given, nothing is left
        choices = strategies.tuples(strategies.just(modes[0]), served_names) | strategies.tuples(
            strategies.sampled_from(usable), strategies.none()
        )

    @hypothesis.settings(
        max_examples=25 if names else 2,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(case=choices.flatmap(cases))
    def ask(case):
        response = case.call_and_validate(base_url=served, session=session, checks=CHECKS, timeout=20)
        assert response.status_code < 500 or response.status_code in (501, 503)

    with requests.Session() as session:
        ask()


@pytest.mark.parametrize(
    ("path", "parameters", "body"),
    [
        ("/v1/models/{model}:predict", ["half"], '{"instances": [1.0, 3e38, 5]}'),
        ("/v1/models/{model}/versions/{version}:predict", ["half", 1], '{"inputs": {"x": [[1.0, 2.0]]}}'),
        ("/v1/models/{model}/labels/{label}:predict", ["half", "old"], '{"inputs": 3}'),
        ("/v1/models/{model}:predict", ["several"], '{"instances": [{"a": [1, 2], "n": 4}]}'),
        ("/v1/models/{model}:predict", ["several"], '{"inputs": {"a": [[1, 2]], "n": [4]}}'),
        (
            "/v1/models/{model}:predict",
            ["several"],
            '{"signature_name": "strings", "instances": ["é", {"b64": "YQ=="}]}',
        ),
        (
            "/v1/models/{model}:classify",
            ["half"],
            '{"signature_name": "classify_names", "context": {"x": 20.0}, "examples": [{}, {"x": 1.0}]}',
        ),
        (
            "/v1/models/{model}:regress",
            ["half"],
            '{"signature_name": "regress_x_to_y", "examples": [{"x": [80.0]}]}',
        ),
        *[
            (
                "/v1/models/{model}:predict",
                ["types"],
                json.dumps({"signature_name": name, "instances": values}),
            )
            for name, values in TYPES.items()
        ],
    ],
)
def test_what_is_answered_right_is_as_described(served, description, path, parameters, body):
    operation = description[path]["POST"]
    given = dict(zip(("model", "label" if "label" in path else "version"), parameters, strict=False))
    response = requests.post(served + path.format(**given), data=body.encode(), timeout=20)
    assert response.status_code == 200, response.text
    operation.validate_response(response)


@pytest.mark.parametrize(
    "path", ["/healthz", "/readyz", "/openapi.json", "/", "/monitoring/prometheus/metrics"]
)
def test_the_routes_of_the_server_itself(served, description, path):
    response = requests.get(served + path, timeout=20)
    assert response.status_code == 200
    description[path]["GET"].validate_response(response)


def test_a_loaded_and_a_broken_model_are_as_described(served, description):
    for path, name in (
        ("/v1/models", "half"),
        ("/v1/models/{model}", "half"),
        ("/v1/models/{model}", "broken"),
        ("/v1/models/{model}/metadata", "half"),
        ("/v1/models/{model}/metadata", "types"),
    ):
        response = requests.get(served + path.format(model=name), timeout=20)
        assert response.status_code == 200, response.text
        description[path]["GET"].validate_response(response)
