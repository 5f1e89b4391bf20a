"""Version folders: how a version gets into the model's folder, and how older versions leave it.

A server may watch the model's folder and load a version as soon as it sees one. So a version is written into
a hidden folder, forced onto the disk, and renamed. A rename within one file system is atomic: the server sees
the whole version or nothing, also if this process is killed or the machine loses power.
"""

import contextlib
import os
import pathlib
import shutil
import tempfile
import warnings
from collections.abc import Iterator


def taken(root: pathlib.Path) -> list[int]:
    """Returns the numbers of the versions, and of the `.keras` files beside them.

    Args:
        root: The model's folder.
    """
    names = [entry.name.removesuffix(".keras") for entry in root.iterdir()] if root.is_dir() else []
    return [int(name) for name in names if name.isascii() and name.isdecimal()]


@contextlib.contextmanager
def scratch(root: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields a hidden folder within the model's folder, and removes it at the end.

    The model's folder and its parents are made if they do not exist. They are removed too if no version was
    put into them.

    Args:
        root: The model's folder.
    """
    made = [folder for folder in (root, *root.parents) if not folder.exists()]
    root.mkdir(parents=True, exist_ok=True)
    # A server takes only folders with numbers as names for versions. And a folder within `root` is on the
    # same file system, which a rename needs.
    folder = pathlib.Path(tempfile.mkdtemp(prefix=".exporting-", dir=root))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(OSError):  # `rmdir` fails at the first folder that is not empty
            for empty in made:
                empty.rmdir()


def publish(
    folder: pathlib.Path, root: pathlib.Path, version: int | None, beside: pathlib.Path | None = None
) -> int:
    """Moves a finished version into place and returns its number.

    Args:
        folder: The folder of the version, on the same file system as `root`.
        root: The model's folder.
        version: The number of the version; None for one more than the highest.
        beside: A file to move beside the version, as `<number>.keras`; None for no file.

    Raises:
        ValueError: If the given version exists.
    """
    _sync(folder)
    if beside is not None:
        _sync(beside)
    number = _rename(folder, root, version)
    if beside is not None:
        beside.replace(root / f"{number}.keras")
    # The new names are entries of these folders. Without this, a loss of power could lose the names.
    _sync_one(root)
    _sync_one(root.parent)
    return number


def _rename(folder: pathlib.Path, root: pathlib.Path, version: int | None) -> int:
    """Renames the folder to its number; takes the next number if another export was faster."""
    while True:
        number = version or max(taken(root), default=0) + 1
        try:
            folder.rename(root / str(number))
        except OSError as error:
            # If the number exists now, another export took it in between. Another failure would only repeat.
            if not (root / str(number)).exists():
                raise
            if version is not None:
                raise ValueError(
                    f"`version` must be a new one. Received: version={version}, which another export has "
                    "written meanwhile. Leave it out for the next number."
                ) from error
        else:
            return number


def prune(root: pathlib.Path, keep: int, version: int) -> None:
    """Removes old versions, and warns of a version that cannot be removed.

    The new version stays, the `keep - 1` highest others stay, and all higher than the new version stay.

    Args:
        root: The model's folder.
        keep: The number of versions to leave.
        version: The number of the new version.
    """
    others = sorted({number for number in taken(root) if number != version}, reverse=True)[keep - 1 :]
    others = [number for number in others if number < version]
    for entry in list(root.iterdir()):
        name = entry.name.removesuffix(".keras")
        if not name.isascii() or not name.isdecimal() or int(name) not in others:
            continue
        try:
            with tempfile.TemporaryDirectory(
                prefix=".pruning-", dir=root, ignore_cleanup_errors=True
            ) as away:
                # Removed after a rename, so that a server does not load half a version.
                entry.rename(pathlib.Path(away) / entry.name)
        except OSError as error:
            # The new version is in place and answers, so the export has not failed.
            warnings.warn(f"`keep`: {str(entry)!r} could not be removed: {error}", stacklevel=3)


def _sync(path: pathlib.Path) -> None:
    """Forces a file, or a folder with all its contents, from the memory of the system onto the disk."""
    for folder, _, files in os.walk(path):
        for name in files:
            _sync_one(pathlib.Path(folder) / name)
        _sync_one(pathlib.Path(folder))
    if path.is_file():
        _sync_one(path)


def _sync_one(path: pathlib.Path) -> None:
    """Forces one file, or the list of names in one folder, onto the disk."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError:
        # Some file systems cannot sync folders, and some users may not. A file must be synced.
        if not path.is_dir():
            raise
