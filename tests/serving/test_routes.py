import pytest

from keras_initx.serving._errors import ServingError
from keras_initx.serving._routes import Route, parse_route

pytestmark = pytest.mark.tensorflow  # it has no backend: once, from one of the suites


@pytest.mark.parametrize(
    ("method", "path", "route"),
    [
        ("POST", "/v1/models/foo:predict", Route("predict", "foo")),
        ("POST", "/v1/models/foo:classify", Route("classify", "foo")),
        ("POST", "/v1/models/foo:regress", Route("regress", "foo")),
        ("POST", "/V1/Models/foo:predict", Route("predict", "foo")),
        ("POST", "/v1/models/foo/versions/50:predict", Route("predict", "foo", 50)),
        ("POST", "/v1/models/foo/versions/00050:predict", Route("predict", "foo", 50)),
        ("POST", "/v1/models/foo/versions/9223372036854775807:predict", Route("predict", "foo", 2**63 - 1)),
        ("POST", "/v1/models/foo/labels/some_label:regress", Route("regress", "foo", None, "some_label")),
        (
            "POST",
            "/v1/models/foo%2Fbar%20%C3%A9/labels/a%2Fb:predict",
            Route("predict", "foo/bar é", None, "a/b"),
        ),
        ("POST", "/v1/models/..%2f..%2fetc:predict", Route("predict", "../../etc")),
        ("GET", "/v1/models", Route("list")),
        ("GET", "/v1/models/foo", Route("status", "foo")),
        ("GET", "/v1/models/foo+bar", Route("status", "foo+bar")),
        ("GET", "/v1/models/foo/versions/50", Route("status", "foo", 50)),
        ("GET", "/v1/models/foo/labels/l", Route("status", "foo", None, "l")),
        ("GET", "/v1/models/foo/metadata", Route("metadata", "foo")),
        ("GET", "/v1/models/foo/versions/50/metadata", Route("metadata", "foo", 50)),
        ("GET", "/v1/models/foo/labels/l/metadata", Route("metadata", "foo", None, "l")),
    ],
)
def test_a_path_says_what_is_asked(method, path, route):
    assert parse_route(method, path) == route


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/foo"),
        ("POST", "/v1/foo"),
        ("POST", "/v1/models"),
        ("GET", "/v1/models/foo:predict"),
        ("GET", "/v1/models/foo/version/50:predict"),
        ("POST", "/v1/models/foo/version/50:regress"),
        ("POST", "/v1/models/foo/versions/HELLO:regress"),
        ("POST", "/v1/models/foo/versions/-1:regress"),
        ("POST", "/v1/models/foo/versions/٣:predict"),
        ("POST", "/v1/models/foo/versions/1/labels/l:predict"),
        ("POST", "/v1/models/foo:PREDICT"),
        ("POST", "/v1/models/foo:explain"),
        ("POST", "/v1/models/foo/bar:predict"),
        ("POST", "/v1/models/../x:predict"),
        ("POST", "/v1/models/foo:predict\n"),
        ("PUT", "/v1/models/foo:predict"),
        ("DELETE", "/v1/models/foo"),
        ("GET", "/v1/models/"),
    ],
)
def test_any_other_path_is_malformed(method, path):
    with pytest.raises(ServingError, match="Malformed request: ") as caught:
        parse_route(method, path)
    assert caught.value.http_status == 400
    assert caught.value.message == f"Malformed request: {method} {path}"


@pytest.mark.parametrize("version", [2**63, 2**64 - 1, int("9" * 400)])
def test_a_version_beyond_64_bits_is_refused_before_the_model_is_looked_up(version):
    with pytest.raises(ServingError, match="Failed to convert version: .* to numeric"):
        parse_route("POST", f"/v1/models/foo/versions/{version}:regress")


def test_a_version_without_a_model_is_refused():
    for path in ("/v1/models/versions/1", "/v1/models/labels/x"):  # which name no model
        with pytest.raises(ServingError):
            parse_route("GET", path)
