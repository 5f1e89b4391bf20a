"""Version folders on disk: which exist, whether they lie inside the root, whether their files changed."""

import os
import pathlib
import shlex

from keras_initx.serving._errors import ServingError

__all__ = ["explain", "fingerprint", "holds_saved_model", "resolve", "version_folders"]

_LARGEST = 2**63 - 1  # a version is an int64 in TensorFlow Serving's messages


def version_folders(base_path: str) -> tuple[dict[int, str], list[str]]:
    """Lists the subfolders that have a whole number as their name, such as `7` or `0007`.

    Args:
        base_path: The model's folder.

    Returns:
        The subfolders by version number, and notes for the log: one line for each subfolder that is left out
        because a shorter name already stands for the same number.

    Raises:
        OSError: If the folder cannot be listed.
    """
    folders: dict[int, str] = {}
    notes = []
    with os.scandir(base_path) as entries:
        names = [entry.name for entry in entries if _is_number(entry.name) and entry.is_dir()]
    for name in sorted(names, key=lambda name: (len(name), name)):
        if int(name) in folders:
            kept = folders[int(name)]
            notes.append(
                f"{base_path}: {name!r} is left out: {pathlib.Path(kept).name!r} is the same version."
            )
        elif int(name) <= _LARGEST:
            folders[int(name)] = str(pathlib.Path(base_path) / name)
    return folders, notes


def _is_number(name: str) -> bool:
    return name.isascii() and name.isdigit()


def holds_saved_model(folder: str) -> bool:
    """Returns whether a folder is a SavedModel itself, with or without a version number as its name."""
    return any((pathlib.Path(folder) / name).exists() for name in ("saved_model.pb", "saved_model.pbtxt"))


def explain(base_path: str) -> str:
    """Returns a sentence that says why a folder holds no version, with the cure."""
    if not holds_saved_model(base_path):
        return f"{base_path} holds no version: put a SavedModel into {base_path}/1"
    if pathlib.Path(base_path).name.isdecimal():
        return f"{base_path} is a version: name its folder, {pathlib.Path(base_path).parent}"
    # A model that was saved directly into its own folder. The command keeps the files and adds the level.
    path, aside = shlex.quote(base_path), shlex.quote(f"{base_path}.1")
    return (
        f"{base_path} is a SavedModel without a version folder. Give it one: "
        f"`mv {path} {aside} && mkdir {path} && mv {aside} {path}/1`"
    )


def resolve(folder: str, root: str) -> str:
    """Returns the folder's real path, after all links are followed.

    Raises:
        ServingError: PERMISSION_DENIED if the real path lies outside `root`.
    """
    real, top = os.path.realpath(folder), os.path.realpath(root)
    if os.path.commonpath([real, top]) != top:
        raise ServingError(
            "PERMISSION_DENIED",
            f"{folder} is a link out of {root}: copy the folder there, or serve its own root.",
        )
    return real


def fingerprint(folder: str, root: str) -> object:
    """Returns a value that differs whenever the files of a version differ. It is only good for comparisons.

    The value holds the names, sizes and times of all files, and the content of `fingerprint.pb`. TensorFlow
    writes that file into each SavedModel, so two exports differ even if their sizes and times are equal. For
    a link that leads out of `root`, the value is the link's target alone.
    """
    try:
        real = resolve(folder, root)
    except ServingError:
        return os.path.realpath(folder)
    marks = []
    for path in sorted(pathlib.Path(real).rglob("*")):
        try:
            stat = path.stat()
            mark = path.read_bytes() if path.name == "fingerprint.pb" else b""
        except OSError:  # a file that was just removed, or a link to nothing
            continue
        marks.append((str(path), stat.st_mtime_ns, stat.st_size, mark))
    return tuple(marks)
