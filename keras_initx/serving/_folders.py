"""Version folders on disk: which there are, whether they lie inside the root, and when their files change."""

import os
import pathlib

from keras_initx.serving._errors import ServingError

__all__ = ["fingerprint", "resolve", "version_folders"]

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
    """What changes when files do: their names, sizes and times; of a link out of `root`, its target."""
    try:
        real = resolve(folder, root)
    except ServingError:
        return os.path.realpath(folder)
    marks = []
    for path in sorted(pathlib.Path(real).rglob("*")):
        try:
            stat = path.stat()
        except OSError:  # just removed, or a link to nothing
            continue
        marks.append((str(path), stat.st_mtime_ns, stat.st_size))
    return tuple(marks)
