"""Version folders: written beside, made durable, renamed into place, pruned."""

import contextlib
import os
import pathlib
import shutil
import tempfile
import warnings
from collections.abc import Iterator


def taken(root: pathlib.Path) -> list[int]:
    """Returns the numbers that versions, or the `.keras` files beside them, have.

    Args:
        root: The model's folder.
    """
    names = [entry.name.removesuffix(".keras") for entry in root.iterdir()] if root.is_dir() else []
    return [int(name) for name in names if name.isascii() and name.isdecimal()]


@contextlib.contextmanager
def scratch(root: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields a hidden folder in the model's folder, and leaves nothing of either unless a version was made.

    Args:
        root: The model's folder, made where there is none.
    """
    made = [folder for folder in (root, *root.parents) if not folder.exists()]
    root.mkdir(parents=True, exist_ok=True)
    # A name that is no number is no version to a server; the same folder makes the rename atomic.
    folder = pathlib.Path(tempfile.mkdtemp(prefix=".exporting-", dir=root))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(OSError):  # the first that is not empty ends it
            for empty in made:
                empty.rmdir()


def publish(
    folder: pathlib.Path, root: pathlib.Path, version: int | None, beside: pathlib.Path | None = None
) -> int:
    """Moves a finished version into place and returns its number.

    Args:
        folder: The version, on the same file system as `root`.
        root: The model's folder.
        version: Its number, or None for the next.
        beside: A file to move beside it, as `<number>.keras`.

    Raises:
        ValueError: If the given version exists.
    """
    _sync(folder)
    if beside is not None:
        _sync(beside)
    number = _rename(folder, root, version)
    if beside is not None:
        beside.replace(root / f"{number}.keras")
    _sync_one(root)
    _sync_one(root.parent)
    return number


def _rename(folder: pathlib.Path, root: pathlib.Path, version: int | None) -> int:
    while True:
        number = version or max(taken(root), default=0) + 1
        try:
            folder.rename(root / str(number))
        except OSError as error:
            # Another export took the number in between; any other failure is not cured by trying again.
            if not (root / str(number)).exists():
                raise
            if version is not None:
                raise ValueError(
                    f"`version` must be a new one. Received: version={version}, which another export has "
                    "written meanwhile."
                ) from error
        else:
            return number


def prune(root: pathlib.Path, keep: int, version: int) -> None:
    """Removes older versions than one but for the highest others; warns of those that cannot be removed.

    Args:
        root: The model's folder.
        keep: Versions to leave.
        version: The one that was written; newer ones stay, too.
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
                entry.rename(pathlib.Path(away) / entry.name)  # a server sees it whole or not at all
        except OSError as error:
            warnings.warn(f"`keep`: {str(entry)!r} could not be removed: {error}", stacklevel=3)


def _sync(path: pathlib.Path) -> None:
    """Has the file, or the folder and all that is in it, written to the disk."""
    for folder, _, files in os.walk(path):
        for name in files:
            _sync_one(pathlib.Path(folder) / name)
        _sync_one(pathlib.Path(folder))
    if path.is_file():
        _sync_one(path)


def _sync_one(path: pathlib.Path) -> None:
    try:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError:
        if not path.is_dir():  # of a folder, not every file system and not every user can ask for it
            raise
