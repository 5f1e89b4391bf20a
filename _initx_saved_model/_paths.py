"""The paths that a model's folder may have."""

import os
import pathlib
import re

# Requests that TensorFlow Serving replays when it loads a version. TensorFlow Serving looks for this name.
WARMUP = pathlib.Path("assets.extra", "tf_serving_warmup_requests")


def model_folder(path: object) -> pathlib.Path:
    """Returns the model's folder, which may not exist yet.

    Args:
        path: The argument that a user gave.

    Raises:
        ValueError: If `path` is not a local path, is a file, or is the folder of a version or lies in one.
    """
    if not isinstance(path, str | os.PathLike) or not os.fspath(path):
        raise ValueError(
            f"`path` must be the model's folder. Received: path={path!r}. Pass a folder, such as "
            "'saved_models/digits'; `export` makes it if it does not exist."
        )
    root = local(
        path,
        "A remote store cannot rename a finished version into place, so a server could load a part of it. "
        "Export to a local folder, and copy the version's folder, saved_model.pb last.",
    )
    if root.exists() and not root.is_dir():
        raise ValueError(
            f"`path` must be a folder or not exist yet. Received: path={str(root)!r}, a file. "
            "Pass another path."
        )
    # `normpath` and not `resolve`: a link `digits` keeps this name, even where it leads to a folder `7`.
    whole = pathlib.Path(os.path.normpath(root.absolute()))
    within = next((one for one in (whole, *whole.parents) if (one / "saved_model.pb").is_file()), None)
    version = within or whole
    numbered = version.name.isascii() and version.name.isdecimal()
    # A version in a version (`digits/1/1`) would be invisible to a server that watches `digits`.
    if within or numbered:
        number = int(version.name) if numbered else 0
        given = f", version={number}" if number and version == whole else ""
        cure = f"Pass path={str(version.parent)!r}{given}." if number else "Pass another folder."
        lies = f"in the SavedModel {str(within)!r}" if within else "the folder of a version"
        raise ValueError(
            "`path` must be the model's folder, in which `export` makes a folder for the version. Received: "
            f"path={os.fspath(path)!r}, {lies}. {cure}"
        )
    return root


def local(path: str | os.PathLike[str], cure: str) -> pathlib.Path:
    """Returns the path if it is on this machine.

    Args:
        path: The path that a user gave.
        cure: The end of the error: how to do without a remote path.

    Raises:
        ValueError: If `path` is the address of a remote store, such as `gs://bucket/digits`.
    """
    text = os.fspath(path)
    # The pattern asks for two letters, because one letter is a drive of Windows, as in `C:/models`. It reads
    # the text as the user gave it, because pathlib makes one slash of the two in `gs://`.
    if re.match(r"([A-Za-z][A-Za-z0-9+.-]+):[\\/]", text):
        raise ValueError(f"`path` must be a folder on this machine. Received: path={text!r}. {cure}")
    return pathlib.Path(path)
