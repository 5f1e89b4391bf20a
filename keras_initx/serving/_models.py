"""All models of a server: found on disk, watched, and replaced while requests keep coming.

Who holds whom, and where the slow work runs:

    event loop                                          threads
    --------------------------------------------------  -----------------------------------------------
    Models        one per server
      Model       one per name, watches its folder  --> "initx-load", one: `open_version` reads a folder,
        Version   one per number that answers       <--   marks the batched signatures, warms them up
          Batcher the queue of its requests         --> "initx-run", one per version: `LoadedModel.run`
                                                    <--   returns the outputs

All bookkeeping happens in the event loop, so dictionaries need no locks. The two locks are for work that
awaits: one `update` at a time for each model, and one start or reload at a time for the server.

The life of a version, as `VersionStatus.state` tells it:

    START --> LOADING --> AVAILABLE --> UNLOADING --> END
                 |                                     ^
                 +--- the load or the warm-up fails ---+   tried again once its files have changed and rested

- Load and warm: `Model.update` looks at the folder and asks the policy which versions are wanted. It loads
  the wanted versions one after the other, the highest first, while the old version goes on answering.
- Swap: a version that is loaded and warmed is put into `Model.available` in one assignment. A request finds
  the old version or the new one, never neither.
- Drop: a version that the policy no longer wants is unloaded only once a wanted version is available. It
  leaves `available` first, so no new request finds it. Then `Version.close` waits until all its requests are
  answered and nothing came for `quiet_seconds`, because a request that found the version earlier may still
  run it.
- Find: a request calls `Models.find(name, version, label)`: name to `Model`, label to number, number to
  `Version`. Without a number, the highest available version answers.
- Reload: a new configuration is loaded beside the old one. Meanwhile each changed model wants the versions of
  both (`Model.candidate`). If everything that is new has loaded, `Models._models` is replaced in one
  assignment. Otherwise the new versions are dropped again, and nothing else has changed.
"""

import asyncio
import concurrent.futures
import logging
from collections.abc import Awaitable, Callable, Sequence

from keras_initx.serving._configs import ModelConfig, check_distinct
from keras_initx.serving._errors import ServingError
from keras_initx.serving._limits import Limits
from keras_initx.serving._model import Model
from keras_initx.serving._version import Version, VersionStatus

__all__ = ["Models"]

_log = logging.getLogger(__name__)


class Models:
    """The models that a server serves. Use an object in one event loop only.

    Args:
        configs: The models to serve, or a function that lists them, such as `lambda: find_models(root)`. The
            function is called at every look. Models that it lists anew are added. A model that it no longer
            lists is kept.
        poll_seconds: Seconds between two looks at the disk. With 0, only the start looks.
        max_batch_rows: The most rows of several requests that run together.
        max_queue: The most requests that may wait for one version.
        max_queue_bytes: The most bytes that the inputs of waiting requests may have, for one version.
        quiet_seconds: A version that is no longer wanted is freed when no request came for this many seconds.
            Until then it answers requests that found it before.
        on_batch: Called in the loop for every batch, with the model's name and the number of rows.
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
        """Loads the models, then watches their folders; returns when each model was tried once.

        A model that fails to load does not fail the start; `statuses` tells why it failed. Requests may come
        during the start: models that are already available answer, the others raise UNAVAILABLE.

        Raises:
            ValueError: If two models have the same name, or if the function that lists the models raises it.
        """
        async with self._changing:  # a reload that comes meanwhile waits
            configs = await asyncio.to_thread(self._list) if self._list else self._configs
            check_distinct(config.name for config in configs)
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
        """Answers all requests that came, then unloads all models.

        If `start` is still running, cancel it before.
        """
        self._started = False
        tasks = [*self._watchers.values(), *([self._reloading] if self._reloading else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(model.close(0) for model in self._models.values()))
        while self._closing:  # versions of models that a reload removed may still be closing
            await asyncio.wait(self._closing)
        self._pool.shutdown(wait=False, cancel_futures=True)

    @property
    def ready(self) -> bool:
        """Whether each model was tried once and at least one version answers.

        So one broken model does not hold back the others.
        """
        return self._started and any(model.available for model in self._models.values())

    def names(self) -> list[str]:
        """Returns the names of all models, sorted, including models that no version answers for."""
        return sorted(self._models)

    def statuses(self, name: str) -> list[VersionStatus]:
        """Returns the state of a model's versions, the highest first; empty for an unknown model.

        The last 16 versions that ended are included.
        """
        return self._models[name].statuses() if name in self._models else []

    def reason(self, name: str) -> str:
        """Returns why a model's folder holds no version, and the cure; empty if it holds one."""
        return self._models[name].reason if name in self._models else ""

    def find(self, name: str, version: int | None = None, label: str | None = None) -> Version:
        """Finds the version that answers a request.

        Run the version at once. One request may run it several times, each time directly after the answer
        before. Do not keep it for the next request: it may be unloaded by then.

        Args:
            name: The model's name.
            version: The version's number. None takes the highest available version.
            label: The label of a version, instead of `version`.

        Raises:
            ServingError: NOT_FOUND if no such version is available, INVALID_ARGUMENT if the model does not
                have the label, UNAVAILABLE while the models are being loaded or unloaded.
        """
        model = self._models.get(name)
        # Until the first load has ended, nobody knows whether the model exists. So not NOT_FOUND yet.
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
        """Looks at the disk now, and returns when everything that it found there is loaded."""
        await self._discover()
        await asyncio.gather(*(model.update() for model in self._models.values()))

    async def reload(self, configs: Sequence[ModelConfig]) -> None:
        """Serves another configuration from now on: models, versions and labels. All of it, or nothing.

        Everything new is loaded first, while the old configuration goes on answering. Nothing changes if a
        new or changed model has no version to serve, or if a label points to a version that is not available.
        Versions that both configurations want answer without a pause.

        Args:
            configs: All models to serve.

        Raises:
            ServingError: INVALID_ARGUMENT if two models have the same name. FAILED_PRECONDITION if the models
                come from a function that lists a folder, or if nothing changed for a reason above.
        """
        if self._list:
            raise ServingError(
                "FAILED_PRECONDITION", "The folder decides which models are served: change the folder."
            )
        try:
            check_distinct(config.name for config in configs)
        except ValueError as error:
            raise ServingError("INVALID_ARGUMENT", str(error)) from error
        # Shielded: a client that hangs up must not leave the server between two configurations.
        self._reloading = asyncio.create_task(self._replace({config.name: config for config in configs}))
        await asyncio.shield(self._reloading)

    async def _replace(self, configs: dict[str, ModelConfig]) -> None:
        async with self._changing:
            models = await self._load_all(configs)
            removed = [model for name, model in self._models.items() if models.get(name) is not model]
            added = [model for name, model in models.items() if self._models.get(name) is not model]
            # No await from here to the new configs: a request sees the old configuration or the new one.
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
        """Loads the models of a new configuration beside the served ones; changes nothing if it raises."""
        models = {name: self._model_for(config) for name, config in configs.items()}
        added = [model for name, model in models.items() if self._models.get(name) is not model]
        changed = [model for name, model in models.items() if model in added or model.config != configs[name]]
        try:
            for model in changed:
                model.candidate = configs[model.config.name]  # from now on it wants the versions of both
            await asyncio.gather(*(model.update() for model in changed))
            for model in changed:
                _check_available(model, configs[model.config.name])
        except BaseException:  # a cancelled reload is undone too
            for model in changed:
                model.candidate = None
            await asyncio.gather(*(model.close(0) for model in added))
            await asyncio.gather(*(model.update() for model in changed if model not in added))
            raise
        return models

    def _model_for(self, config: ModelConfig) -> Model:
        model = self._models.get(config.name)
        # Another folder may hold other files under the same numbers. So it gets a model of its own.
        same = model and (model.config.base_path, model.config.root) == (config.base_path, config.root)
        return model if model and same else self._new(config)

    def _new(self, config: ModelConfig) -> Model:
        return Model(config, self._pool, self._limits, self._quiet, self._closing, self._on_batch)

    async def _discover(self) -> None:
        try:
            configs = await asyncio.to_thread(self._list) if self._list else ()
        except (OSError, ValueError) as error:
            if str(error) != self._said:  # once, not at every look
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
            except Exception:  # a look that fails must not end the watch
                _log.exception("What is served stays")


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
