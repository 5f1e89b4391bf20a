"""The stored facts of `initx list` and `initx show` are the facts of the code, on every backend."""

import importlib.metadata

import pytest

from _initx_command import _catalogue
from keras_initx import initializers, strategies
from keras_initx.cli import main

CURE = "run `make catalogue`, and commit _initx_command/catalogue.json"


@pytest.fixture(scope="module")
def made():
    return _catalogue.make()


def test_the_stored_facts_are_those_of_the_code(made):
    stored = {facts["name"]: facts for facts in _catalogue.read()["initializers"]}
    current = {facts["name"]: facts for facts in made["initializers"]}
    for name, facts in current.items():
        assert stored.get(name) == facts, CURE
    assert list(stored) == list(current), CURE


def test_the_stored_facts_of_keras_are_those_of_its_version(made):
    stored = _catalogue.read()["keras"]
    if stored["version"] != importlib.metadata.version("keras"):
        pytest.skip("another Keras is installed: `show` asks it, and does not read the stored facts")
    assert stored == made["keras"], CURE
    assert stored["names"]["he_normal"] == "HeNormal"


def test_another_keras_is_asked(monkeypatch, capsys):
    monkeypatch.setitem(_catalogue.read()["keras"], "version", "3.0.0")
    assert _catalogue.find("he_normal") is None
    assert main(["show", "he_normal"]) == 0
    asked = capsys.readouterr().out
    monkeypatch.setitem(_catalogue.read()["keras"], "version", importlib.metadata.version("keras"))
    assert main(["show", "he_normal"]) == 0
    assert capsys.readouterr().out == asked


def test_a_law_needs_what_its_class_says_and_other_initializers_a_shape():
    for facts in _catalogue.read()["initializers"]:
        if facts["name"] in strategies.STRATEGIES:
            assert facts["needs"] == "model"
        else:
            needs = initializers.needs_of(initializers.get(facts["name"]))
            assert facts["needs"] == ", ".join(["shape", *sorted(needs)]), facts["name"]


def test_an_initializer_that_needs_arguments_is_refused(capsys):
    assert main(["show", "constant"]) == 2
    error = capsys.readouterr().err
    assert error == (
        "initx: `name` must be an initializer that can be made without arguments. Received: 'constant'.\n"
    )
