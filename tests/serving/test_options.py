"""The options of a server: one set of defaults, shown by both entries and by the command."""

import dataclasses
import inspect
import re

import pytest

from keras_initx.serving import serve, serve_on_ray
from keras_initx.serving._options import Options

pytestmark = pytest.mark.tensorflow


def options_of(function):
    """The parameters that are options of a server, with their defaults."""
    own = {"replicas", "max_replicas", "ray_address", "on_start"}
    parameters = inspect.signature(function).parameters.values()
    return {parameter.name: parameter.default for parameter in parameters if parameter.name not in own}


@pytest.mark.parametrize("function", [serve, serve_on_ray])
def test_the_signature_shows_the_defaults_and_the_docstring_names_each_option(function):
    assert options_of(function) == {field.name: field.default for field in dataclasses.fields(Options)}
    documented = re.findall(r"^ {8}(\w+): ", function.__doc__.partition("Returns:")[0], re.MULTILINE)
    assert documented == list(inspect.signature(function).parameters)


@pytest.mark.parametrize("function", [serve, serve_on_ray])
def test_all_options_but_the_root_are_given_by_name(function):
    kinds = [parameter.kind for parameter in inspect.signature(function).parameters.values()]
    assert kinds[0] is inspect.Parameter.POSITIONAL_OR_KEYWORD
    assert set(kinds[1:]) == {inspect.Parameter.KEYWORD_ONLY}


def test_each_option_arrives(tmp_path, monkeypatch):
    """An option that `serve` forgot to pass on would silently keep its default."""
    import keras_initx.serving._ray as ray_module
    import keras_initx.serving._server as server_module

    class ArrivedError(Exception):
        pass

    def options(**given):
        raise ArrivedError(given)

    monkeypatch.setattr(server_module, "Options", options)
    monkeypatch.setattr(ray_module, "Options", options)
    given = {name: f"/{name}" for name in options_of(serve)}
    for function in (serve, serve_on_ray):
        with pytest.raises(ArrivedError) as caught:
            function(**given)
        assert caught.value.args == (given,)


def test_the_command_has_the_same_defaults(monkeypatch, tmp_path):
    import keras_initx.serving
    from keras_initx.cli import main

    given = {}
    monkeypatch.setattr(keras_initx.serving, "serve", lambda **options: given.update(options))
    assert main(["serve", str(tmp_path)]) == 0
    expected = options_of(serve) | {"root": str(tmp_path)}
    # The command leaves out options without a value: `serve` then takes its own default, None.
    assert given == {name: value for name, value in expected.items() if value is not None}
