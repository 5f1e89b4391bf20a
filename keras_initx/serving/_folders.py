"""Version folders on disk: which there are, whether they lie inside the root, and when their files change."""

import os
import pathlib
import shlex

from keras_initx.serving._errors import ServingError

__all__ = ["explain", "fingerprint", "holds_saved_model", "resolve", "version_folders"]

_LARGEST = 2**63 - 1


def version_folders(base_path: str) -> tuple[dict[int, str], list[str]]:
    """Lists the folders of `base_path` whose names are whole numbers, zero-padded ones included.

    Returns:
        The folders by version, and a line for each folder that another one of the same number hides.

    Raises:
        OSError: The folder cannot be listed.
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
    """Whether a folder is a SavedModel itself: a version, or one that lacks its version folder."""
    return any((pathlib.Path(folder) / name).exists() for name in ("saved_model.pb", "saved_model.pbtxt"))


def explain(base_path: str) -> str:
    """Says why a folder holds no version, and what cures it."""
    if not holds_saved_model(base_path):
        return f"{base_path} holds no version: put a SavedModel into {base_path}/1"
    if pathlib.Path(base_path).name.isdecimal():
        return f"{base_path} is a version: name its folder, {pathlib.Path(base_path).parent}"
    path, aside = shlex.quote(base_path), shlex.quote(f"{base_path}.1")
    return (
        f"{base_path} is a SavedModel without a version folder. Give it one: "
        f"`mv {path} {aside} && mkdir {path} && mv {aside} {path}/1`"
    )


def resolve(folder: str, root: str) -> str:
    """The folder without links.

    Raises:
        ServingError: PERMISSION_DENIED where it lies outside `root`.
    """
    real, top = os.path.realpath(folder), os.path.realpath(root)
    if os.path.commonpath([real, top]) != top:
        raise ServingError(
            "PERMISSION_DENIED",
            f"{folder} is a link out of {root}: copy the folder there, or serve its own root.",
        )
    return real


def fingerprint(folder: str, root: str) -> object:
    """What changes when files do: their names, sizes and times, and the mark of a SavedModel.

    TensorFlow writes a mark of its own into each SavedModel, `fingerprint.pb`, which also tells apart files
    of equal sizes and times. Of a link out of `root`, only its target is told.
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
        except OSError:  # just removed, or a link to nothing
            continue
        marks.append((str(path), stat.st_mtime_ns, stat.st_size, mark))
    return tuple(marks)
