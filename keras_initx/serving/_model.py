"""One model: its versions, from a folder on disk to what answers and back."""

import asyncio
import concurrent.futures
import dataclasses
import logging
from collections.abc import Callable

from keras_initx.serving._batching import Limits
from keras_initx.serving._configs import ModelConfig
from keras_initx.serving._errors import ServingError
from keras_initx.serving._folders import explain, fingerprint, version_folders
from keras_initx.serving._opening import Opened, open_version
from keras_initx.serving._version import Version, VersionStatus

__all__ = ["Model"]

_log = logging.getLogger(__name__)
# Versions that have ended and are still told of.
HISTORY = 16


@dataclasses.dataclass
class _Files:
    """The files of a version when it was read, as they were last seen, and why they could not be loaded."""

    read: object
    seen: object
    error: ServingError | None = None

    def look(self, now: object) -> bool:
        """Notes what they are now; returns whether they differ from those read, and have come to rest."""
        rest, self.seen = now == self.seen, now
        return rest and now != self.read


class Model:
    """The versions of one model.

    A version that fails to load is as if it were not there until its files have changed and then rested from
    one look to the next: the policy picks among the others. So the version before a corrupt one keeps
    serving, also after a restart.

    A version whose files change while it answers is read again once they rest, and replaced. If that fails,
    what answered before goes on, and the version's status says why.

    What the policy no longer picks is unloaded once something that it picks is available. So nothing is
    unloaded when the folder vanishes or is empty.

    Attributes:
        reason: Why the folder holds no version, and what to do about it; empty where it holds one.

    Args:
        config: The model.
        pool: Threads that load.
        limits: Of each version.
        quiet: Seconds without a request after which an unwanted version is closed.
        closing: Where the tasks that close versions are kept until they end, beside those of other models.
        observe: Called with the name and the rows of each batch.
    """

    def __init__(
        self,
        config: ModelConfig,
        pool: concurrent.futures.Executor,
        limits: Limits,
        quiet: float,
        closing: set[asyncio.Task[None]],
        observe: Callable[[str, int], None] | None,
    ) -> None:
        self.config = config
        self.candidate: ModelConfig | None = None
        self.available: dict[int, Version] = {}
        self.failed: dict[int, _Files] = {}
        self.reason = ""
        self._files: dict[int, _Files] = {}
        self._statuses: dict[int, VersionStatus] = {}
        self._folders: dict[int, str] = {}
        self._pool = pool
        self._limits = limits
        self._quiet = quiet
        self._observe = (lambda rows: observe(config.name, rows)) if observe else None
        self._lock = asyncio.Lock()
        self._all_closing = closing
        self._closing: set[asyncio.Task[None]] = set()
        self._said: set[str] = set()
        self._ended = False

    def statuses(self) -> list[VersionStatus]:
        """All versions of now and the last ones that ended, the highest first."""
        return sorted(self._statuses.values(), key=lambda status: -status.number)

    def find(self, version: int | None, label: str | None) -> Version | None:
        """An available version: the named one, the label's, or the highest."""
        if label is not None:
            version = self.config.labels[label]
        return self.available.get(max(self.available, default=-1) if version is None else version)

    async def update(self) -> None:
        """Looks at the folder, loads what is due and unloads what is unwanted."""
        async with self._lock:
            try:
                self._folders, notes = await asyncio.to_thread(version_folders, self.config.base_path)
            except OSError as error:
                kept = f"keeps {sorted(self.available)}" if self.available else "serves nothing"
                self._say(f"Model {self.config.name} {kept}: {error}")
                return
            self.reason = "" if self._folders else await asyncio.to_thread(explain, self.config.base_path)
            for note in [*notes, self.reason]:
                self._say(note)
            await self._forgive()
            await self._renew()
            while not self._ended and (due := [n for n in self.wanted() if n not in self.available]):
                for number in reversed(due):
                    self._set(number, "START")
                await self._load(due[0])
            if any(number in self.available for number in self.wanted()):
                for number in self.available.keys() - set(self.wanted()):
                    self._unload(number, self._quiet)

    def wanted(self) -> list[int]:
        """The versions to serve among those that are there and have not failed, the highest first."""
        sound = self._folders.keys() - self.failed.keys()
        configs = [config for config in (self.candidate, self.config) if config]
        return list(dict.fromkeys(number for config in configs for number in config.wanted(sound)))

    async def close(self, quiet: float) -> None:
        """Unloads everything, and loads nothing more."""
        self._ended = True
        for number in list(self.available):
            self._unload(number, quiet)
        while self._closing:
            await asyncio.wait(self._closing)  # whose own end does not end theirs

    async def _forgive(self) -> None:
        """Lets failed versions try again whose files changed since, or are gone."""
        for number, files in list(self.failed.items()):
            if number not in self._folders or files.look(await self._fingerprint(number)):
                del self.failed[number]

    async def _renew(self) -> None:
        """Reads those versions again that answer, and whose folder now holds other files."""
        for number in self._files.keys() & self._folders.keys() & set(self.wanted()):
            if self._files[number].look(await self._fingerprint(number)) and not self._ended:
                _log.warning("Model %s version %s is read again: its files changed", self.config.name, number)
                await self._load(number)

    async def _fingerprint(self, number: int) -> object:
        return await asyncio.to_thread(fingerprint, self._folders[number], self.config.boundary)

    async def _load(self, number: int) -> None:
        name, answering = self.config.name, number in self.available
        if not answering:
            self._set(number, "LOADING")
        latest = max(self.available, default=number)
        before = self.available[latest].model if self.available and latest <= number else None
        opened = await asyncio.get_running_loop().run_in_executor(
            self._pool, open_version, self._folders[number], self.config.boundary, self._limits, before
        )
        if opened.model is None:
            self._fail(number, opened)
        elif self._ended:
            opened.model.close()
        else:
            if answering:
                self._close_later(self.available[number], self._quiet)
            self.available[number] = Version(name, number, opened.model, opened.limits, self._observe)
            self._files[number] = _Files(opened.files, opened.files)
            self._set(number, "AVAILABLE")
            together = sorted(key for key, one in opened.model.signatures.items() if one.batched)
            _log.info(
                "Model %s version %s is available; batched: %s",
                name,
                number,
                together or "nothing, and `initx inspect` says why",
            )

    def _fail(self, number: int, opened: Opened) -> None:
        files = _Files(opened.files, opened.files, opened.error)
        if number in self.available:
            _log.error("Model %s version %s stays as it was: %s", self.config.name, number, opened.error)
            self._files[number] = files
            self._set(number, "AVAILABLE", opened.error)
        else:
            _log.error("Model %s version %s is not served: %s", self.config.name, number, opened.error)
            self.failed[number] = files
            self._set(number, "END", opened.error)

    def _unload(self, number: int, quiet: float) -> None:
        self._files.pop(number)
        self._set(number, "UNLOADING")
        self._close_later(self.available.pop(number), quiet)

    def _close_later(self, version: Version, quiet: float) -> None:
        task = asyncio.create_task(self._close(version, quiet))
        for tasks in (self._closing, self._all_closing):
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    async def _close(self, version: Version, quiet: float) -> None:
        await version.close(quiet)
        if self._statuses[version.number].state == "UNLOADING":  # not loaded again meanwhile
            self._set(version.number, "END")
        _log.info("Model %s version %s is unloaded", version.name, version.number)

    def _set(self, number: int, state: str, error: ServingError | None = None) -> None:
        told = (error.code, error.message) if error else ("OK", "")
        self._statuses.pop(number, None)
        self._statuses[number] = VersionStatus(number, state, *told)
        ended = [number for number, status in self._statuses.items() if status.state == "END"]
        for old in ended[:-HISTORY]:
            del self._statuses[old]

    def _say(self, note: str) -> None:
        if note and note not in self._said:
            self._said.add(note)
            _log.warning(note)
