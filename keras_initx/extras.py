"""The one door to optional packages: which extra brings a package, and the line that installs it.

Rooms ask here before they import an optional package. Each refusal is an ImportError that ends with a line
for the shell. The line works although no index has keras-initx: pip finds it installed, and installs only
the packages of the extra that are missing.
"""

import importlib.metadata
import importlib.util
import re
from typing import Literal, TypeAlias

__all__ = ["Extra", "is_installed", "pip_line", "require", "require_ray"]

# The extras of pyproject.toml that code asks for.
Extra: TypeAlias = Literal["dataframe", "examples", "plots", "ray", "serve"]
_RAY = (2, 60)


def is_installed(module: str) -> bool:
    """Whether a package can be imported. It is not imported, so the answer takes no time.

    >>> is_installed("numpy"), is_installed("no_such_package")
    (True, False)

    Args:
        module: Name of the top package, such as `"grpc"`.
    """
    return importlib.util.find_spec(module) is not None


def pip_line(extra: Extra) -> str:
    """Returns the command that installs an extra.

    >>> pip_line("plots")
    "pip install 'keras-initx[plots]'"
    """
    return f"pip install 'keras-initx[{extra}]'"


def require(*modules: str, extra: Extra, purpose: str) -> None:
    """Raises ImportError unless all of an extra's packages that are needed can be imported.

    >>> require("numpy", "no_such_package", extra="plots", purpose="`plot_signal`")
    Traceback (most recent call last):
    ImportError: `plot_signal` needs no_such_package. Received: a Python without it. Install it with
        pip install 'keras-initx[plots]'

    Args:
        modules: Names of the top packages, as they are imported.
        extra: The extra that brings them.
        purpose: Begins the message: what needs them.

    Raises:
        ImportError: If one is missing; the message names all that are, and the line that installs them.
    """
    missing = [module for module in modules if not is_installed(module)]
    if missing:
        them = "it" if len(missing) == 1 else "them"
        raise ImportError(
            f"{purpose} needs {', '.join(missing)}. Received: a Python without {them}. Install {them} with "
            f"{pip_line(extra)}"
        )


def require_ray(purpose: str, *modules: str) -> None:
    """Raises ImportError unless Ray is installed in a version that does not let anybody in.

    Args:
        purpose: Begins the message: what needs Ray.
        modules: What else of the extra is needed.

    Raises:
        ImportError: If Ray or one of the modules is missing, or Ray is older than 2.60.
    """
    require("ray", *modules, extra="ray", purpose=purpose)
    found = importlib.metadata.version("ray")
    if tuple(int(part) for part in re.findall("[0-9]+", found)[:2]) < _RAY:
        raise ImportError(
            f"{purpose} needs Ray 2.60 or newer: older ones let anybody in. Received: ray {found}. Update it "
            f"with {pip_line('ray')}"
        )
