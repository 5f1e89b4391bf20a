"""Where a model's folder may be."""

import os
import pathlib
import re
from typing import Any

# Requests that TensorFlow Serving replays when it loads a version, within the version's folder.
WARMUP = pathlib.Path("assets.extra", "tf_serving_warmup_requests")


def model_folder(path: Any) -> pathlib.Path:
    """Returns a model's folder, which may not exist yet.

    Args:
        path: What a user gave.

    Raises:
        ValueError: If it is not a local path, or that of a version or of what lies in one.
    """
    if not isinstance(path, str | os.PathLike) or not os.fspath(path):
        raise ValueError(f"`path` must be the model's folder. Received: path={path!r}.")
    root = local(path)
    if root.exists() and not root.is_dir():
        raise ValueError(f"`path` must be a folder or not exist yet. Received: path={str(root)!r}, a file.")
    whole = pathlib.Path(os.path.normpath(root.absolute()))  # a link keeps its own name
    within = next((one for one in (whole, *whole.parents) if (one / "saved_model.pb").is_file()), None)
    version = within or whole
    numbered = version.name.isascii() and version.name.isdecimal()
    if within or numbered:
        number = int(version.name) if numbered else 0
        given = f", version={number}" if number and version == whole else ""
        cure = f"Pass path={str(version.parent)!r}{given}." if number else "Pass another folder."
        lies = f"in the SavedModel {str(within)!r}" if within else "the folder of a version"
        raise ValueError(
            "`path` must be the model's folder, in which `export` makes one for the version. Received: "
            f"path={os.fspath(path)!r}, {lies}. {cure}"
        )
    return root


def local(path: str | os.PathLike[str]) -> pathlib.Path:
    """Returns a path on this machine.

    Args:
        path: What a user gave.

    Raises:
        ValueError: If it is one of a remote store.
    """
    text = os.fspath(path)
    # One letter is a drive of Windows; pathlib makes one slash of two.
    if re.match(r"([A-Za-z][A-Za-z0-9+.-]+):[\\/]", text):
        raise ValueError(
            "`path` must be a folder of this machine: a remote store does not rename a finished version into "
            f"place, so that a server could load a part. Received: path={text!r}. Export to a local folder, "
            "and copy the version's folder, saved_model.pb last."
        )
    return pathlib.Path(path)
