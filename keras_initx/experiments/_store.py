"""Results on disk, one file for each trial, so that a comparison that was killed can go on."""

import dataclasses
import json
import os
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from keras_initx.experiments._trial import Trial, TrialResult

__all__ = ["Store"]

_RESULT = re.compile(r"[0-9a-f]{16}\.json")
_ANEW = "Remove the file, and its trial is made again."
_ELSEWHERE = "Choose another folder, or remove this one."
_NUMBERS = ("final", "best", "test", "seconds_to_target", "seconds", "epochs_to_target")


class Store:
    """A folder of results.

    The file `comparison.json` says which comparison the results belong to. Each result has a file of its own,
    named by the key of its trial, so that two processes never write the same file.

    Args:
        folder: The folder; it is made if it does not exist.
        fingerprint: The hash of the problem, from `Problem.fingerprint`.
        initializers: The identity of each initializer by label, from `identify`.

    Raises:
        ValueError: If the folder cannot be written, or holds the results of another comparison, or holds a
            file that a comparison does not write.
    """

    def __init__(
        self, folder: str | os.PathLike[str], fingerprint: str, initializers: Mapping[str, Any]
    ) -> None:
        self.folder = pathlib.Path(folder)
        self._manifest = self.folder / "comparison.json"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            names = [path.name for path in self.folder.iterdir()]
        except OSError as error:
            self._refuse_folder(error)
        before: dict[str, Any] = {}
        if self._manifest.name in names:
            before = _load(self._manifest, _ELSEWHERE)
            if before.keys() != {"fingerprint", "initializers"} or not isinstance(
                before["initializers"], dict
            ):
                _refuse(self._manifest, _difference(before, {"fingerprint", "initializers"}), _ELSEWHERE)
        elif any(_RESULT.fullmatch(name) for name in names):
            _refuse(self._manifest, "does not exist, although there are results", _ELSEWHERE)
        self._check(before, fingerprint, initializers)
        self._content = {
            "fingerprint": fingerprint,
            "initializers": {**before.get("initializers", {}), **initializers},
        }

    def _check(self, before: dict[str, Any], fingerprint: str, initializers: Mapping[str, Any]) -> None:
        known = before.get("initializers", {})
        other = [
            label for label in initializers if known.get(label, initializers[label]) != initializers[label]
        ]
        changed = f"another initializer of the label {other[0]!r}" if other else ""
        if before and before["fingerprint"] != fingerprint:
            changed = "another model, other data, or another metric, mode, target or batch size"
        if changed:
            raise ValueError(
                f"`store` must be empty, or hold results of the same comparison. Received: "
                f"store={str(self.folder)!r}, made with {changed}. {_ELSEWHERE}"
            )

    def open(self, trials: Sequence[Trial]) -> list[TrialResult]:
        """Returns the results that the folder has for these trials, and writes `comparison.json`."""
        files = [(trial, self.folder / f"{trial.key}.json") for trial in trials]
        found = [_read(trial, file) for trial, file in files if file.exists()]
        self._write(self._manifest, self._content)  # only now: a refused folder stays as it was
        return found

    def write(self, result: TrialResult) -> None:
        """Writes a result. A kill or a full disk leaves the whole file or no file."""
        self._write(self.folder / f"{result.trial.key}.json", result.to_dict())

    def _write(self, path: pathlib.Path, content: Mapping[str, Any]) -> None:
        """Writes a file beside its place and renames it, so that a reader never sees a part of it."""
        beside = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            try:
                with beside.open("w") as file:
                    json.dump(content, file)
                    file.flush()
                    os.fsync(file.fileno())
                beside.replace(path)
            except BaseException:
                beside.unlink(missing_ok=True)
                raise
        except OSError as error:
            self._refuse_folder(error)

    def _refuse_folder(self, error: OSError) -> NoReturn:
        raise ValueError(
            f"`store` must be a folder that can be written. Received: store={str(self.folder)!r}: "
            f"{error.strerror}. Make room, or choose another folder. The same call goes on from the results "
            "in the folder."
        ) from error


def _read(trial: Trial, file: pathlib.Path) -> TrialResult:
    found = _load(file, _ANEW)
    fields = {field.name for field in dataclasses.fields(TrialResult)}
    needed = {"trial", "curves", "failure", "diverged"}
    if found.keys() - fields or needed - found.keys():
        _refuse(file, _difference(found, needed, fields), _ANEW)
    if found["trial"] != dataclasses.asdict(trial):
        _refuse(file, f"is the result of another trial, {found['trial']}", _ANEW)
    if wrong := _wrong_value(found):
        _refuse(file, f"has a {wrong} that no trial has", _ANEW)
    return TrialResult.from_dict(found)


def _wrong_value(found: Mapping[str, Any]) -> str:
    """Returns the first field with a value of the wrong type, or an empty text."""
    number = int | float | None
    curves = found["curves"]
    if not isinstance(curves, dict) or not all(
        isinstance(curve, list) and all(isinstance(value, int | float) for value in curve)
        for curve in curves.values()
    ):
        return "`curves`"
    kinds = dict.fromkeys(_NUMBERS, number) | {"failure": str, "diverged": bool, "stopped": bool}
    kinds |= {"signal": dict | None, "notes": list}
    return next((f"`{n}`" for n, kind in kinds.items() if n in found and not isinstance(found[n], kind)), "")


def _load(path: pathlib.Path, cure: str) -> dict[str, Any]:
    try:
        text = path.read_text()
    except OSError as error:
        _refuse(path, f"cannot be read: {error.strerror}", cure, error)
    except UnicodeDecodeError as error:
        _refuse(path, "is not text", cure, error)
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        _refuse(path, f"is not a whole JSON document: {error}" if text else "is empty", cure, error)
    if not isinstance(found, dict):
        _refuse(path, f"is a JSON {type(found).__name__}", cure)
    return found


def _difference(found: Mapping[str, Any], needed: set[str], known: set[str] | None = None) -> str:
    """Returns a phrase about the fields of a file that are missing or unknown."""
    if missing := sorted(needed - found.keys()):
        return f"lacks {missing}"
    if unknown := sorted(found.keys() - (known or needed)):
        return f"has {unknown}, which this version does not know: a later version wrote it"
    return "is not of the form that a comparison writes"


def _refuse(path: pathlib.Path, fault: str, cure: str, error: Exception | None = None) -> NoReturn:
    raise ValueError(
        f"`store` must hold only files that `compare` wrote. Received: {str(path)!r}, which {fault}. {cure}"
    ) from error
