"""The defaults of the Python functions behind the verbs, read from their source.

`initx calibrate --help` shows the defaults of `keras_initx.calibrate`. `inspect.signature` needs the function
itself, and so an import of `keras_initx`, which takes seconds. This module parses the source instead, and
follows the imports:

    keras_initx/__init__.py                 from keras_initx.calibration import calibrate
    keras_initx/calibration/__init__.py     from keras_initx.calibration._calibrate import calibrate
    keras_initx/calibration/_calibrate.py   def calibrate(model, ..., tolerance: float = 0.1, ...)
"""

import ast
import functools
import importlib.util
import pathlib
from collections.abc import Mapping

__all__ = ["defaults_of"]


@functools.cache
def defaults_of(function: str) -> Mapping[str, object]:
    """Returns the defaults of a function or class of `keras_initx`, by the names of its arguments.

    An argument without a default is left out. So is an argument whose default is a name, and not a number, a
    text or an expression of these.

    >>> defaults_of("keras_initx.calibrate")["tolerance"]
    0.1

    Args:
        function: A dotted name, such as `"keras_initx.calibrate"`.
    """
    module, _, name = function.rpartition(".")
    arguments = _find(module, name).args
    positional = [*arguments.posonlyargs, *arguments.args]
    # The defaults of positional arguments belong to the last ones. Keyword-only ones have one each, or None.
    last = zip(reversed(positional), reversed(arguments.defaults), strict=False)
    named = zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    nodes = {argument.arg: node for argument, node in (*last, *named) if node is not None}
    return {name: value for name, node in nodes.items() for value in _values(node)}


def _find(module: str, name: str) -> ast.FunctionDef:
    """Returns a function, or the `__init__` of a class, which the module defines or imports."""
    for node in _parse(module).body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            inner = (part for part in node.body if isinstance(part, ast.FunctionDef))
            return next(part for part in inner if part.name == "__init__")
        if isinstance(node, ast.FunctionDef) and node.name == name:
            return node
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    return _find(node.module, alias.name)
    raise LookupError(f"{module} has no function {name}")


@functools.cache
def _parse(module: str) -> ast.Module:
    root, *inner = module.split(".")
    spec = importlib.util.find_spec(root)  # which finds a package without importing it
    if spec is None or spec.origin is None:
        raise LookupError(f"{root} is not installed")
    path = pathlib.Path(spec.origin).parent.joinpath(*inner)
    return ast.parse((path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_bytes())


def _values(node: ast.expr) -> tuple[object, ...]:
    """Returns the value of an expression in a tuple, or an empty tuple if the expression uses names."""
    try:
        # `literal_eval` refuses `32 * 2**20`. The source is this package's own, which is going to run anyway.
        return (eval(compile(ast.Expression(node), "<default>", "eval"), {"__builtins__": {}}),)
    except NameError:
        return ()
