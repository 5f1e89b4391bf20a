"""One model: its versions on disk, the versions that answer, and the steps between.

`_models.py` draws the life of a version. This file decides which version takes which step, at each look.
"""

import asyncio
import concurrent.futures
import dataclasses
import logging
from collections.abc import Callable

from keras_initx.serving._configs import ModelConfig
from keras_initx.serving._errors import ServingError
from keras_initx.serving._folders import explain, fingerprint, version_folders
from keras_initx.serving._limits import Limits
from keras_initx.serving._opening import Opened, open_version
from keras_initx.serving._version import Version, VersionStatus

__all__ = ["Model"]

_log = logging.getLogger(__name__)
# How many ended versions `statuses` still lists, so that an operator can read why one ended.
HISTORY = 16


@dataclasses.dataclass
class _Files:
    """The files of a version, as fingerprints.

    Attributes:
        read: The files when the version was last loaded.
        seen: The files at the last look.
        error: The error of that load; None if it went well.
    """

    read: object
    seen: object
    error: ServingError | None = None

    def look(self, now: object) -> bool:
        """Returns whether the files differ from the loaded ones and have come to rest, and notes them.

        Files rest if two looks in a row see the same: a copy that is still running is not worth a load.
        """
        rest, self.seen = now == self.seen, now
        return rest and now != self.read


class Model:
    """The versions of one model.

    A version that fails to load is ignored: the policy picks among the other versions. So the version before
    a corrupt one keeps answering, and it answers after a restart too. The failed version is tried again once
    its files have changed and come to rest.

    A version may get other files while it answers. Once the files rest, they are loaded and replace the old
    version. If the load fails, the old version goes on, and its status says why.

    A version that the policy no longer picks is unloaded only once a version that it picks is available. So
    nothing is unloaded when the folder vanishes or becomes empty.

    Attributes:
        config: The model's configuration.
        candidate: A second configuration, during a reload: the model then loads the versions of both.
        available: The versions that answer, by number.
        failed: The versions that could not be loaded, by number.
        reason: Why the folder holds no version, and the cure; empty if it holds one.

    Args:
        config: The model's configuration.
        pool: The thread that loads.
        limits: The server's limits for each version.
        quiet: An unwanted version is closed after this many seconds without a request.
        closing: The server's set of tasks that close versions. This model adds its own tasks.
        observe: Called for each batch, with the model's name and the number of rows.
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
        # Closing may outlive this object, after a reload removed the model. So the server keeps the tasks
        # too.
        self._all_closing = closing
        self._closing: set[asyncio.Task[None]] = set()
        self._said: set[str] = set()
        self._ended = False

    def statuses(self) -> list[VersionStatus]:
        """Returns the state of all present versions and of the last ended ones, the highest first."""
        return sorted(self._statuses.values(), key=lambda status: -status.number)

    def find(self, version: int | None, label: str | None) -> Version | None:
        """Returns the available version of that number or label, or the highest; None if there is none.

        Args:
            version: The number, or None.
            label: One of the labels in `config`, or None.
        """
        if label is not None:
            version = self.config.labels[label]
        return self.available.get(max(self.available, default=-1) if version is None else version)

    async def update(self) -> None:
        """Looks at the folder once: loads the wanted versions, then unloads the unwanted ones."""
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
            # One load at a time, and the policy is asked again after each: if a version fails, the policy may
            # pick an older one instead.
            while not self._ended and (due := [n for n in self.wanted() if n not in self.available]):
                for number in reversed(due):
                    self._set(number, "START")
                await self._load(due[0])
            # Only now: a model must not drop its last version before another one answers.
            if any(number in self.available for number in self.wanted()):
                for number in self.available.keys() - set(self.wanted()):
                    self._unload(number, self._quiet)

    def wanted(self) -> list[int]:
        """Returns the versions that should answer: on disk, not failed, and picked by the policy."""
        sound = self._folders.keys() - self.failed.keys()
        configs = [config for config in (self.candidate, self.config) if config]
        return list(dict.fromkeys(number for config in configs for number in config.wanted(sound)))

    async def close(self, quiet: float) -> None:
        """Unloads all versions after `quiet` seconds without a request, and loads nothing from now on."""
        self._ended = True
        for number in list(self.available):
            self._unload(number, quiet)
        while self._closing:
            await asyncio.wait(self._closing)  # unlike `gather`, it does not cancel them if it is cancelled

    async def _forgive(self) -> None:
        """Forgets the failure of each version that has other files now, or none: it may be tried again."""
        for number, files in list(self.failed.items()):
            if number not in self._folders or files.look(await self._fingerprint(number)):
                del self.failed[number]

    async def _renew(self) -> None:
        """Loads each answering version again if its folder now holds other files."""
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
        # The warm-up compares with the version that this one would replace. An older version replaces none.
        before = self.available[latest].model if self.available and latest <= number else None
        opened = await asyncio.get_running_loop().run_in_executor(
            self._pool, open_version, self._folders[number], self.config.boundary, self._limits, before
        )
        if opened.model is None:
            self._fail(number, opened)
        elif self._ended:  # the server stopped during the load
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
            self._set(
                number, "AVAILABLE", opened.error
            )  # it still answers, from the files that it read before
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
        # The same number may have been loaded again meanwhile. Then its state is not this version's.
        if self._statuses[version.number].state == "UNLOADING":
            self._set(version.number, "END")
        _log.info("Model %s version %s is unloaded", version.name, version.number)

    def _set(self, number: int, state: str, error: ServingError | None = None) -> None:
        told = (error.code, error.message) if error else ("OK", "")
        self._statuses.pop(number, None)  # moves it to the end, so that the oldest ended version goes first
        self._statuses[number] = VersionStatus(number, state, *told)
        ended = [number for number, status in self._statuses.items() if status.state == "END"]
        for old in ended[:-HISTORY]:
            del self._statuses[old]

    def _say(self, note: str) -> None:
        if note and note not in self._said:  # once, not at every look
            self._said.add(note)
            _log.warning(note)
