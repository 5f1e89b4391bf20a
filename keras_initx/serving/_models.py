"""All models of a server: found, watched, replaced."""

import asyncio
import concurrent.futures
import logging
from collections.abc import Awaitable, Callable, Sequence

from keras_initx.serving._batching import Limits
from keras_initx.serving._configs import ModelConfig
from keras_initx.serving._errors import ServingError
from keras_initx.serving._model import Model
from keras_initx.serving._version import Version, VersionStatus

__all__ = ["Models"]

_log = logging.getLogger(__name__)


class Models:
    """The models that are served, in one event loop; TensorFlow runs in threads beside it.

    Args:
        configs: The models, or a function that lists them, such as `lambda: find_models(root)`. The function
            is called at every look; models that it lists anew are added, and none is removed.
        poll_seconds: Time between two looks at the disk; 0 to look at the start alone.
        max_batch_rows: Rows of several requests that are run together.
        max_queue: Requests that may wait for a version.
        max_queue_bytes: Bytes of their inputs.
        quiet_seconds: A version that is no longer wanted answers until nothing has come for this long, for
            requests that found it before.
        on_batch: Called in the loop with the name of the model and the rows of every batch.
    """

    def __init__(
        self,
        configs: Sequence[ModelConfig] | Callable[[], Sequence[ModelConfig]],
        *,
        poll_seconds: float = 1.0,
        max_batch_rows: int = Limits.max_batch_rows,
        max_queue: int = Limits.max_queue,
        max_queue_bytes: int = Limits.max_queue_bytes,
        quiet_seconds: float = 1.0,
        on_batch: Callable[[str, int], None] | None = None,
    ) -> None:
        self._list = configs if callable(configs) else None
        self._configs = () if callable(configs) else tuple(configs)
        self._poll_seconds = poll_seconds
        self._limits = Limits(max_batch_rows, max_queue, max_queue_bytes)
        self._quiet = quiet_seconds
        self._on_batch = on_batch
        self._pool = concurrent.futures.ThreadPoolExecutor(1, "initx-load")
        self._models: dict[str, Model] = {}
        self._watchers: dict[object, asyncio.Task[None]] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._changing = asyncio.Lock()
        self._reloading: asyncio.Task[None] | None = None
        self._started = False
        self._said = ""

    async def start(self) -> None:
        """Starts to load and to watch; returns when the first load of each model has ended, well or not.

        A server may answer meanwhile: `ready` is False, and what is not there yet is not found.

        Raises:
            ValueError: What the function that lists the models raises, or two models of one name.
        """
        async with self._changing:  # a reload waits for its end
            configs = await asyncio.to_thread(self._list) if self._list else self._configs
            _check_names(configs)
            self._models = {config.name: self._new(config) for config in configs}
            await asyncio.gather(*(model.update() for model in self._models.values()))
            for model in self._models.values():
                self._watch(model, model.update)
                for label, number in model.config.labels.items():
                    if number not in model.available:
                        _log.error("Model %s label %s: no version %s", model.config.name, label, number)
            if self._list:
                self._watch(self, self._discover)
            self._started = True

    async def stop(self) -> None:
        """Answers what was asked, and unloads everything; cancel a `start` that still runs first."""
        self._started = False
        tasks = [*self._watchers.values(), *([self._reloading] if self._reloading else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(model.close(0) for model in self._models.values()))
        while self._closing:  # of models that a reload took away
            await asyncio.wait(self._closing)
        self._pool.shutdown(wait=False, cancel_futures=True)

    @property
    def ready(self) -> bool:
        """Whether the first load of each model has ended and at least one version answers.

        A model that cannot be loaded is told by its statuses; it does not hold back the others.
        """
        return self._started and any(model.available for model in self._models.values())

    def names(self) -> list[str]:
        """The models, sorted, with those that have no available version."""
        return sorted(self._models)

    def statuses(self, name: str) -> list[VersionStatus]:
        """The versions of a model, the highest first, with the last that ended; none of an unknown model."""
        return self._models[name].statuses() if name in self._models else []

    def reason(self, name: str) -> str:
        """Why a model holds no version, and how to mend it; empty where it holds one."""
        return self._models[name].reason if name in self._models else ""

    def find(self, name: str, version: int | None = None, label: str | None = None) -> Version:
        """Finds the version that answers a request.

        It may be run at once, and again when that answer is there; do not keep it from request to request.

        Args:
            name: The model.
            version: Its version; the highest available one when None.
            label: The label of a version, instead of `version`.

        Raises:
            ServingError: NOT_FOUND where none is available; INVALID_ARGUMENT for a label that the model has
                not.
        """
        model = self._models.get(name)
        if not self._started and not (model and model.available):
            raise ServingError("UNAVAILABLE", "Models are being loaded, or unloaded: ask again.")
        if label is not None and (model is None or label not in model.config.labels):
            raise ServingError("INVALID_ARGUMENT", f"Unrecognized servable version label: {label}")
        found = model.find(version, label) if model else None
        if found is None:
            if label is not None and model:
                version = model.config.labels[label]
            asked = f"Latest({name})" if version is None else f"Specific({name}, {version})"
            raise ServingError("NOT_FOUND", f"Servable not found for request: {asked}")
        return found

    async def poll(self) -> None:
        """Looks at the disk now; returns when what was found has been loaded."""
        await self._discover()
        await asyncio.gather(*(model.update() for model in self._models.values()))

    async def reload(self, configs: Sequence[ModelConfig]) -> None:
        """Serves other models, versions and labels, from now on; what is wanted before and after serves on.

        Everything new is loaded first. If a model that is new or changed has no version to serve then, or a
        label points to a version that is not available, nothing changes.

        Args:
            configs: All models to serve.

        Raises:
            ServingError: INVALID_ARGUMENT for two models of one name; FAILED_PRECONDITION where the models
                are what a folder holds, and where nothing changed for one of the reasons above.
        """
        if self._list:
            raise ServingError(
                "FAILED_PRECONDITION", "The models are what the folder holds: change the folder."
            )
        try:
            _check_names(configs)
        except ValueError as error:
            raise ServingError("INVALID_ARGUMENT", str(error)) from error
        # Once begun it is brought to its end, though the caller may be gone.
        self._reloading = asyncio.create_task(self._replace({config.name: config for config in configs}))
        await asyncio.shield(self._reloading)

    async def _replace(self, configs: dict[str, ModelConfig]) -> None:
        async with self._changing:
            models = await self._load_all(configs)
            removed = [model for name, model in self._models.items() if models.get(name) is not model]
            added = [model for name, model in models.items() if self._models.get(name) is not model]
            self._models = models
            for name, model in models.items():
                model.config, model.candidate = configs[name], None
            for model in removed:
                self._watchers.pop(model).cancel()
            for model in added:
                self._watch(model, model.update)
            await asyncio.gather(*(model.update() for model in models.values()))
            await asyncio.gather(*(model.close(self._quiet) for model in removed))

    async def _load_all(self, configs: dict[str, ModelConfig]) -> dict[str, Model]:
        """Loads what new configs ask for beside what is served, or nothing."""
        models = {name: self._model_for(config) for name, config in configs.items()}
        added = [model for name, model in models.items() if self._models.get(name) is not model]
        changed = [model for name, model in models.items() if model in added or model.config != configs[name]]
        try:
            for model in changed:
                model.candidate = configs[model.config.name]
            await asyncio.gather(*(model.update() for model in changed))
            for model in changed:
                _check_available(model, configs[model.config.name])
        except BaseException:
            for model in changed:
                model.candidate = None
            await asyncio.gather(*(model.close(0) for model in added))
            await asyncio.gather(*(model.update() for model in changed if model not in added))
            raise
        return models

    def _model_for(self, config: ModelConfig) -> Model:
        model = self._models.get(config.name)
        same = model and (model.config.base_path, model.config.root) == (config.base_path, config.root)
        return model if model and same else self._new(config)

    def _new(self, config: ModelConfig) -> Model:
        return Model(config, self._pool, self._limits, self._quiet, self._closing, self._on_batch)

    async def _discover(self) -> None:
        try:
            configs = await asyncio.to_thread(self._list) if self._list else ()
        except (OSError, ValueError) as error:
            if str(error) != self._said:
                _log.warning("What is served stays: %s", error)
            self._said = str(error)
            return
        for config in configs:
            if config.name not in self._models:
                self._models[config.name] = model = self._new(config)
                self._watch(model, model.update)

    def _watch(self, key: object, look: Callable[[], Awaitable[None]]) -> None:
        self._watchers[key] = asyncio.create_task(self._look_again(look))

    async def _look_again(self, look: Callable[[], Awaitable[None]]) -> None:
        while self._poll_seconds:
            await asyncio.sleep(self._poll_seconds)
            try:
                await look()
            except Exception:
                _log.exception("What is served stays")


def _check_names(configs: Sequence[ModelConfig]) -> None:
    names = [config.name for config in configs]
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise ValueError(
            f"`name` must be another one for each model. Received twice: {doubled}. Rename them."
        )


def _check_available(model: Model, config: ModelConfig) -> None:
    if not any(number in model.available for number in config.wanted(model.available)):
        reasons = [f"version {number}: {files.error}" for number, files in model.failed.items()]
        raise ServingError(
            "FAILED_PRECONDITION",
            f"Model {config.name} has no version to serve in {config.base_path}. "
            + "; ".join(reasons or [model.reason]),
        )
    for number in config.labels.values():
        if number not in model.available:
            raise ServingError(
                "FAILED_PRECONDITION",
                f"Request to assign label to version {number} of model {config.name}, "
                "which is not currently available for inference",
            )
