"""The import rule of the house: who may import whom, as a table."""

import ast
import functools
import pathlib
import re
import sys

import pytest

pytestmark = pytest.mark.tensorflow  # it has no backend: once, from one of the suites
ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = ROOT / "keras_initx"
# Packages beside it, which run without Keras, and the packages that each of them may import at module level.
BESIDE = {"_initx_command": {"_initx_command"}, "_initx_saved_model": {"_initx_saved_model"}}

# The ground floor: any room may import these.
GROUND = {
    "_given",
    "_keras_internals",
    "_keras_optimizers",
    "_types",
    "_vocabulary",
    "checks",
    "extras",
    "reports",
    "tables",
}
# Rooms that each room may import at module level.
ALLOWED = {
    "_given": set(),
    "_keras_internals": set(),
    "_keras_optimizers": set(),
    "_types": set(),
    "_vocabulary": {"checks"},
    "checks": set(),
    "extras": set(),
    "reports": set(),
    "tables": set(),
    "fans": set(),
    "gains": set(),
    "gradients": set(),
    "losses": {"data"},
    "state": set(),
    "data": set(),
    "datasets": set(),
    "summaries": set(),
    "plots": set(),
    "optimizers": set(),
    "initializers": {"fans", "gains", "gradients"},
    "layers": set(),
    "uses": set(),
    "walk": {"fans", "layers", "uses"},
    "probe": {"uses", "walk"},
    "recurrence": {"walk"},
    "adapters": {"state", "walk"},
    "donors": {"fans", "uses", "walk"},
    "strategies": {
        "adapters",
        "donors",
        "fans",
        "gains",
        "initializers",
        "optimizers",
        "state",
        "uses",
        "walk",
    },
    "calibration": {
        "adapters",
        "gradients",
        "initializers",
        "losses",
        "walk",
        "probe",
        "recurrence",
        "state",
        "data",
    },
    "diagnostics": {
        *("calibration", "data", "fans", "gains", "gradients", "initializers", "losses", "probe"),
        *("recurrence", "state", "strategies", "uses", "walk"),
    },
    "callbacks": {
        *("calibration", "data", "diagnostics", "gradients", "losses", "probe", "summaries", "walk"),
    },
    "experiments": {
        *("calibration", "data", "diagnostics", "initializers", "state", "strategies", "summaries", "walk"),
    },
    "saved_model": {"data", "gains", "initializers", "walk"},
    "scaling": {"data", "losses", "probe", "state", "strategies", "walk"},
    "serving": set(),
    "testing": {"calibration", "initializers", "walk"},
    "cli": set(),
    "__main__": {"cli"},
    "__init__": {
        *(
            "calibration",
            "callbacks",
            "diagnostics",
            "fans",
            "gains",
            "initializers",
            "layers",
        ),
        *("experiments", "optimizers", "plots", "saved_model", "scaling", "serving", "strategies", "walk"),
    },
}
# What no room may import at module level, but for those named: they are slow, or extras.
HEAVY = {
    "tensorflow": set(),
    "torch": set(),
    "jax": set(),
    "ray": set(),
    "scipy": set(),
    "pandas": set(),
    "keras_tuner": set(),
    "matplotlib": set(),
    "tensorflow_serving": set(),
    "grpc": set(),
    "sklearn": {"datasets"},
    "tensorflow_datasets": {"datasets"},
}

# The modules that may use names which Keras does not document.
INTERNALS = ("_keras_internals", "_keras_optimizers")
# Private names that other modules may use: they are not Keras'.
NOT_KERAS = {
    "_actor_id": "Ray's: an actor's id",
    "_exit": "Python's: os._exit",
    "_getframe": "Python's: sys._getframe",
    "_gradient_function": "TensorFlow's: the gradient of an operation that ran",
    "_initx_step": "this package's mark on a KerasTensor",
    "_initx_weights": "this package's mark on a KerasTensor",
    "_node_ip_address": "Ray's argument of `init`",
    "_parent_trackable": "TensorFlow's: the table that a resource belongs to",
    "_replace": "NamedTuple's",
    "_split_generators": "tensorflow-datasets': what a builder calls for its rows",
}


def modules():
    return sorted(PACKAGE.rglob("*.py"))


def modules_beside():
    return sorted(path for package in BESIDE for path in (ROOT / package).rglob("*.py"))


@functools.cache
def _tree(path):
    return ast.parse(path.read_text())


def room_of(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path):
    """Dotted names that a module imports when it is itself imported."""
    tree = _tree(path)
    nested = {
        node
        for later in ast.walk(tree)
        if isinstance(later, ast.FunctionDef | ast.AsyncFunctionDef) or _is_for_types(later)
        for node in ast.walk(later)
    }
    for node in ast.walk(tree):
        if node in nested:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _is_for_types(node):
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def test_the_table_names_every_room():
    assert {room_of(path) for path in modules()} == set(ALLOWED)


def test_the_page_for_maintainers_has_the_same_table():
    page = (ROOT / "docs" / "architecture.md").read_text()
    table = page.split("| room | imports |\n| --- | --- |\n")[1].split("\n\n")[0]
    rows = [re.findall(r"`(\w+)`", line) for line in table.splitlines()]
    rule = {room: allowed for room, allowed in ALLOWED.items() if room not in GROUND and room[:2] != "__"}
    assert {room: set(allowed) for room, *allowed in rows} == rule
    floors = page.split("| floor | knows | rooms |\n| --- | --- | --- |\n")[1].split("\n\n")[0]
    named = [room for line in floors.splitlines() for room in re.findall(r"`(\w+)`", line.split("|")[3])]
    assert sorted(named) == sorted({*rule, *GROUND} - {"cli"})


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_rooms_import_only_what_the_table_allows(path):
    room = room_of(path)
    used = {name.split(".")[1] for name in imported(path) if name.startswith("keras_initx.")} - {room}
    assert used <= ALLOWED[room] | GROUND


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_heavy_packages_are_imported_inside_functions(path):
    for name in imported(path):
        assert room_of(path) in HEAVY.get(name.split(".")[0], {room_of(path)}), name


def test_private_files_are_imported_by_their_own_room_only():
    for path in modules():
        for name in imported(path):
            parts = name.split(".")
            if parts[0] == "keras_initx" and any(part.startswith("_") for part in parts[2:3]):
                assert parts[1] == room_of(path), f"{path} imports {name}"


def test_only_probe_and_recurrence_hook_layers_and_only_walk_names_layer_classes():
    """`keras.layers.Layer` is what all layers are, no class of its own.

    `testing` makes layers for its checks to run in; it asks no layer for its class.
    """
    for path in modules():
        tree = _tree(path)
        attributes = [ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
        named = {name for name in attributes if name.removeprefix("keras.").startswith("layers.")}
        if room_of(path) not in ("probe", "recurrence"):
            assert "object.__setattr__" not in attributes, path
        if room_of(path) not in ("walk", "testing"):
            assert named <= {"keras.layers.Layer"}, path


def _private_names(tree):
    """Names of one leading underscore that code takes off other objects, in any spelling."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) not in ("self", "cls"):
            yield node.attr
        if isinstance(node, ast.Call) and ast.unparse(node.func) in (
            "getattr",
            "hasattr",
            "setattr",
            "delattr",
        ):
            yield _text(node.args[1])


def _text(node):
    """A string, or how an f-string begins; empty for what only running tells."""
    first = node.values[0] if isinstance(node, ast.JoinedStr) else node
    return first.value if isinstance(first, ast.Constant) and isinstance(first.value, str) else ""


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_two_modules_alone_use_names_that_keras_does_not_document(path):
    """A Keras release may take any of them away; tests/test_keras_internals.py tells which."""
    if room_of(path) in INTERNALS:
        return
    tree = _tree(path)
    private = {name for name in _private_names(tree) if name.startswith("_") and not name.startswith("__")}
    assert private <= set(NOT_KERAS)
    texts = (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant))
    assert not any("keras.src" in text for text in texts if isinstance(text, str))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    assert not any("keras.src" in ast.unparse(node) for node in imports)
    # A way round it: the module of a public class holds private names.
    assert "sys.modules[keras" not in ast.unparse(tree)
    assert ".__module__]" not in ast.unparse(tree)


@pytest.mark.parametrize("room", INTERNALS)
def test_keras_internals_run_nothing_at_import(room):
    """Were a name missing, only the function that uses it would fail."""
    tree = ast.parse((PACKAGE / f"{room}.py").read_text())
    assert all(
        isinstance(node.value, ast.Constant | ast.List) for node in tree.body if isinstance(node, ast.Assign)
    )
    kinds = (ast.Expr, ast.Import, ast.ImportFrom, ast.Assign, ast.FunctionDef)
    assert all(isinstance(node, kinds) for node in tree.body)
    assert not [name for name in imported(PACKAGE / f"{room}.py") if name.startswith("keras.")]


@pytest.mark.parametrize("path", modules_beside(), ids=lambda path: str(path.relative_to(ROOT)))
def test_the_packages_beside_import_the_standard_library_alone(path):
    """So `initx --help` answers at once. Functions import Keras, NumPy and `keras_initx` later."""
    names = {name.split(".")[0] for name in imported(path)}
    assert names - sys.stdlib_module_names <= BESIDE[path.parent.name]


def test_files_and_function_bodies_stay_short():
    for path in [*modules(), *modules_beside()]:
        assert len(path.read_text().splitlines()) <= 300, path
        for node in ast.walk(_tree(path)):
            if isinstance(node, ast.FunctionDef):
                start = node.body[1 if ast.get_docstring(node) and len(node.body) > 1 else 0].lineno
                assert node.end_lineno - start < 40, f"{path}: {node.name}"


def _dotted(path):
    """The name by which a file is imported."""
    return ".".join(("keras_initx", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(
        ".__init__"
    )


def _needed_by(path, known):
    """Modules of the package that a file names at its top level, those for types alone included."""
    tree = _tree(path)
    functions = (n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef))
    nested = {inner for function in functions for inner in ast.walk(function)}
    for node in ast.walk(tree):
        if node in nested:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom) and node.module in known:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            yield from names & known
            # The package itself, unless only modules of it are taken.
            if not names <= known:
                yield node.module


def _circle(needs):
    """Modules of which each needs the next and the last the first; empty if there are none."""
    done, way = set(), []

    def follow(name):
        if name in way:
            return [*way[way.index(name) :], name]
        if name in done:
            return []
        way.append(name)
        found = next(filter(None, map(follow, sorted(needs[name]))), [])
        way.pop()
        done.add(name)
        return found

    return next(filter(None, map(follow, sorted(needs))), [])


def test_a_circle_is_found():
    assert _circle({"a": {"b"}, "b": {"c"}, "c": set()}) == []
    assert _circle({"a": {"b"}, "b": {"c", "d"}, "c": set(), "d": {"b"}}) == ["b", "d", "b"]


def test_no_imports_go_in_a_circle_even_for_types_alone():
    """Two files that name each other's classes are one file in two parts."""
    known = {_dotted(path) for path in modules()}
    needs = {_dotted(path): set(_needed_by(path, known)) for path in modules()}
    assert sum(map(len, needs.values())) > 300  # or it reads nothing
    circle = _circle(needs)
    assert not circle, " -> ".join(circle)


@functools.cache
def _law_classes():
    """Names of `Law` and of all classes that derive from it, as `initializers` writes them."""
    bases = {
        node.name: {ast.unparse(base).split("[")[0].split(".")[-1] for base in node.bases}
        for path in (PACKAGE / "initializers").glob("*.py")
        for node in ast.walk(_tree(path))
        if isinstance(node, ast.ClassDef)
    }
    found = {"Law"}
    while more := {name for name, parents in bases.items() if parents & found} - found:
        found |= more
    return found


def _asked_for(tree):
    """Last parts of the names that code asks for with `isinstance`, `issubclass` or a class pattern."""
    for node in ast.walk(tree):
        classes = []
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("isinstance", "issubclass"):
            classes = node.args[1:]
        elif isinstance(node, ast.MatchClass):
            classes = [node.cls]
        for part in (inner for one in classes for inner in ast.walk(one)):
            if isinstance(part, ast.Name | ast.Attribute):
                yield ast.unparse(part).split(".")[-1]


def test_a_question_for_a_class_is_found():
    text = "isinstance(a, (x.LSUV, B))\nissubclass(c, D | E)\nmatch f:\n    case G():\n        pass"
    assert {"LSUV", "B", "D", "E", "G"} <= set(_asked_for(ast.parse(text)))


def test_no_room_but_initializers_asks_for_the_class_of_a_law():
    """Others read `needs`, `scope`, `weight` and `draws_from_inputs`, so a user's law is equal to ours."""
    laws = _law_classes()
    assert {"DataDependent", "GradInit", "LSUV", "LabelPrior", "Law", "PCAFilters"} <= laws
    for path in [*modules(), *modules_beside()]:
        if path.is_relative_to(PACKAGE) and room_of(path) == "initializers":
            continue
        assert not laws & set(_asked_for(_tree(path))), path


def test_the_walk_the_experiments_and_the_command_import_no_law():
    """Neither at module level, nor inside a function, nor as an attribute of a module."""
    beside = [path for path in modules_beside() if path.parent.name == "_initx_command"]
    rooms = [path for path in modules() if room_of(path) in ("walk", "experiments")]
    assert beside
    assert rooms
    for path in [*rooms, *beside]:
        tree = _tree(path)
        taken = {
            alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names
        }
        named = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        assert not _law_classes() & (taken | named), path


def test_the_door_has_no_logic():
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    assert len((PACKAGE / "__init__.py").read_text().splitlines()) <= 60
    assert all(isinstance(node, ast.Expr | ast.Import | ast.ImportFrom | ast.Assign) for node in tree.body)
