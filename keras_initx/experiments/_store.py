"""Results on disk, one file a trial, so that a comparison that was killed goes on where it was."""

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
_ANEW = "Remove the file to have its trial made again."
_ELSEWHERE = "Choose another folder, or remove this one."
_NUMBERS = ("final", "best", "test", "seconds_to_target", "seconds", "epochs_to_target")


class Store:
    """A folder of results.

    Args:
        folder: The folder; it is made when there is none.
        fingerprint: What the results depend on besides their trials, as `Problem.fingerprint` tells it.
        schemes: What each label stands for.

    Raises:
        ValueError: If the folder cannot be written, or holds the results of another comparison, or a file in
            it is not what a comparison writes.
    """

    def __init__(self, folder: str | os.PathLike[str], fingerprint: str, schemes: Mapping[str, Any]) -> None:
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
            if before.keys() != {"fingerprint", "schemes"} or not isinstance(before["schemes"], dict):
                _refuse(self._manifest, _difference(before, {"fingerprint", "schemes"}), _ELSEWHERE)
        elif any(_RESULT.fullmatch(name) for name in names):
            _refuse(self._manifest, "is not there, though results are", _ELSEWHERE)
        self._check(before, fingerprint, schemes)
        self._content = {"fingerprint": fingerprint, "schemes": {**before.get("schemes", {}), **schemes}}

    def _check(self, before: dict[str, Any], fingerprint: str, schemes: Mapping[str, Any]) -> None:
        known = before.get("schemes", {})
        other = [label for label in schemes if known.get(label, schemes[label]) != schemes[label]]
        what = f"another initializer of the label {other[0]!r}" if other else ""
        if before and before["fingerprint"] != fingerprint:
            what = "another model, other data, or another metric, mode, target or batch size"
        if what:
            raise ValueError(
                f"`store` must be empty, or hold results of the same comparison. Received: "
                f"store={str(self.folder)!r}, made with {what}. {_ELSEWHERE}"
            )

    def open(self, trials: Sequence[Trial]) -> list[TrialResult]:
        """Returns the results of these trials that are there, and writes down what the folder is of."""
        files = [(trial, self.folder / f"{trial.key}.json") for trial in trials]
        found = [_read(trial, file) for trial, file in files if file.exists()]
        self._write(self._manifest, self._content)  # once nothing is wrong with what is there
        return found

    def write(self, result: TrialResult) -> None:
        """Keeps a result; a kill or a full disk leaves all of it or nothing."""
        self._write(self.folder / f"{result.trial.key}.json", result.to_dict())

    def _write(self, path: pathlib.Path, content: Any) -> None:
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
            f"{error.strerror}. Make room or choose another; the same call goes on from what is in it."
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
        _refuse(file, f"holds no {wrong} that a trial has", _ANEW)
    return TrialResult.from_dict(found)


def _wrong_value(found: Mapping[str, Any]) -> str:
    """The first field whose value no trial has, or nothing."""
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
        _refuse(path, "is no text", cure, error)
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        _refuse(path, f"is no whole JSON: {error}" if text else "is empty", cure, error)
    if not isinstance(found, dict):
        _refuse(path, f"is a JSON {type(found).__name__}", cure)
    return found


def _difference(found: Mapping[str, Any], needed: set[str], known: set[str] | None = None) -> str:
    """What is wrong with the fields of a file."""
    if missing := sorted(needed - found.keys()):
        return f"lacks {missing}"
    if unknown := sorted(found.keys() - (known or needed)):
        return f"has {unknown}, which this version does not know: a later one wrote it"
    return "is not of the form that a comparison writes"


def _refuse(path: pathlib.Path, what: str, cure: str, error: Exception | None = None) -> NoReturn:
    raise ValueError(
        f"`store` must hold what `compare` wrote. Received: {str(path)!r}, which {what}. {cure}"
    ) from error
