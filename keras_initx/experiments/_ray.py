"""The runner that makes trials in several processes and on several machines, by Ray Tune."""

import contextlib
import copy
import math
import os
import secrets
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from keras_initx.checks import check_count, is_number
from keras_initx.experiments._problem import Problem
from keras_initx.experiments._sequential import Progress
from keras_initx.experiments._trial import Trial, TrialResult
from keras_initx.experiments._tune import Keeper, environment, make_keeper, make_task, quiet_tune, share
from keras_initx.extras import require_ray

if TYPE_CHECKING:
    from ray.tune import schedulers

__all__ = ["Ray"]


class Ray:
    """Makes trials in processes of Ray, as many at once as there are CPUs and GPUs for.

    By default Ray starts on this machine and ends with the comparison. If the program has initialized Ray
    already, that Ray is used as it is. Else the cluster at `address`, or at the environment variable
    `RAY_ADDRESS`, is used. An exception of a trial is its result. A trial whose process or machine dies is
    made again from its start.

    Args:
        cpus: CPUs of a trial. The trial has the same number of threads.
        gpus: GPUs of a trial. With a fraction, trials share a GPU and its memory. With 0, trials see no GPU.
        address: The address of a running cluster, or `"auto"`.
        early_stopping: True to let ASHA end trials that are behind; or a scheduler of `ray.tune.schedulers`
            that ends trials. The scheduler sees the logs of each epoch.
        retries: How many times a trial that was lost is made again before it counts as failed.
        progress: Whether to show on stderr how many trials have ended, and how long the others will take.

    Raises:
        ImportError: If the extra `ray` is missing or too old.
        ValueError: If an argument is wrong.

    Reference:
        Li et al., "A System for Massively Parallel Hyperparameter Tuning", 2020.
    """

    def __init__(
        self,
        *,
        cpus: float = 1,
        gpus: float = 0,
        address: str | None = None,
        early_stopping: "bool | schedulers.TrialScheduler" = False,
        retries: int = 2,
        progress: bool = True,
    ) -> None:
        require_ray("`Ray`", "fsspec", "pandas", "pyarrow", "requests")
        self.cpus, self.gpus = _amount("cpus", cpus), _amount("gpus", gpus)
        self.address = address or os.environ.get("RAY_ADDRESS")
        if self.address and self.address.startswith("ray://"):
            raise ValueError(
                "`address` must be the address of a cluster's head, or 'auto'. Received: "
                f"address={self.address!r}, an address of Ray Client. Run on a machine of the cluster, with "
                "'auto'."
            )
        self.early_stopping = _check_scheduler(early_stopping)
        self.retries: int = check_count("retries", retries, least=0)
        self.progress: bool = progress

    def run(self, problem: Problem, trials: Sequence[Trial], keep: Callable[[TrialResult], None]) -> None:
        """Makes the trials.

        Args:
            problem: The model, the data and the settings that all trials share. They are copied to each
                machine once.
            trials: The trials to make.
            keep: Called in this process with each result, as soon as the trial has ended.

        Raises:
            ValueError: If the problem cannot be sent to another process, or a trial fits on no machine.
            KeyboardInterrupt: After Ctrl-C. Trials that had not ended are lost.
        """
        with _connected(self.address), quiet_tune(), tempfile.TemporaryDirectory() as folder:
            _check_fits(self.cpus, self.gpus)
            keeper = make_keeper(trials, keep, Progress(len(trials), self.progress))
            shared = share(problem, trials, bool(self.early_stopping))
            task = make_task(shared, environment(self.cpus, self.gpus))
            while left := [number for number in range(len(trials)) if number not in keeper.ended]:
                options = self._scheduling(problem, trials) | {"callbacks": [keeper], "storage_path": folder}
                if self._tune(task, left, options, keeper) and len(keeper.ended) < len(trials):
                    raise KeyboardInterrupt  # Tune has caught it and returned

    def _tune(
        self,
        task: Callable[[dict[str, Any]], None],
        numbers: list[int],
        options: dict[str, Any],
        keeper: Keeper,
    ) -> bool:
        """Lets Tune make trials. Returns False if Tune gave up because the memory monitor ended a process."""
        import ray
        from ray import tune

        try:
            tune.run(
                task,
                config={"number": tune.grid_search(numbers)},
                resources_per_trial={"cpu": self.cpus, "gpu": self.gpus},
                max_failures=self.retries,
                raise_on_failed_trial=False,
                reuse_actors=True,  # else each trial would wait for a process to import Keras
                verbose=0,
                **options,
            )
        except tune.TuneError as error:
            if keeper.unkept:
                raise keeper.unkept from error
            if keeper.broken:
                raise ValueError(
                    "`build_fn` and the data must be objects that processes of Ray can load. Received: "
                    f"{keeper.broken} Install the modules that they import on all machines."
                ) from error
            raise
        except RuntimeError as error:  # Tune does not know this error of Ray, and gives up
            if not isinstance(error.__cause__, ray.exceptions.OutOfMemoryError):
                raise
            keeper.ran_out(str(error.__cause__), self.retries)
            return False
        return True

    def _scheduling(self, problem: Problem, trials: Sequence[Trial]) -> dict[str, Any]:
        if not self.early_stopping:
            return {}
        scheduler = copy.deepcopy(self.early_stopping)  # a scheduler remembers the trials of one comparison
        if scheduler is True:
            from ray.tune.schedulers import ASHAScheduler

            scheduler = ASHAScheduler(max_t=max(trial.epochs for trial in trials))
        if getattr(scheduler, "metric", None):
            return {"scheduler": scheduler}
        mode = "min" if problem.minimize else "max"
        return {"scheduler": scheduler, "metric": f"val_{problem.metric}", "mode": mode}


def _amount(name: str, value: object) -> float:
    """Returns a number of CPUs or GPUs, which Ray counts in whole numbers or fractions of one."""
    least = 0 if name == "gpus" else 0.001
    real = is_number(value) and math.isfinite(value) and value >= least
    if not is_number(value) or not real or (value > 1 and value != int(value)):
        raise ValueError(
            f"`{name}` must be a whole number, or a fraction of one. Received: {name}={value!r}."
        )
    return value


def _check_scheduler(chosen: Any) -> "bool | schedulers.TrialScheduler":
    """Refuses schedulers that pause trials, which needs checkpoints, or that change the trials."""
    if isinstance(chosen, bool):
        return chosen
    from ray.tune import schedulers

    others = (
        schedulers.HyperBandScheduler,
        schedulers.PopulationBasedTraining,
        schedulers.PopulationBasedTrainingReplay,
        schedulers.ResourceChangingScheduler,
    )
    if not isinstance(chosen, schedulers.TrialScheduler) or isinstance(chosen, others):
        raise ValueError(
            "`early_stopping` must be True, False, or a scheduler of Ray Tune that ends trials, such as ASHA "
            f"or the median rule. Received: {type(chosen).__name__}."
        )
    return chosen


@contextlib.contextmanager
def _connected(address: str | None) -> Iterator[None]:
    """Connects to Ray: the Ray of the program, or a cluster, or a new Ray on this machine that ends here."""
    if "ray" in sys.modules and sys.modules["ray"].is_initialized():
        yield
        return
    options: dict[str, Any] = {"address": address, "logging_level": "warning"}
    # Not the usual temporary folder: a socket's path has at most 107 characters, and Ray adds long names.
    home = tempfile.TemporaryDirectory(prefix="initx-", dir="/tmp", ignore_cleanup_errors=True)
    with home as folder:
        if not address:
            # Ray 2.60 asks for a token unless RAY_AUTH_MODE says otherwise.
            os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
            os.environ.setdefault("RAY_worker_niceness", "0")
            alone = {"include_dashboard": False, "_node_ip_address": "127.0.0.1", "_temp_dir": folder}
            options = {"address": "local", "logging_level": "error", **alone}
        import ray

        ray.init(log_to_driver=False, **options)
        try:
            yield
        finally:
            ray.shutdown()


def _check_fits(cpus: float, gpus: float) -> None:
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if not any(node.get("CPU", 0) >= cpus and node.get("GPU", 0) >= gpus for node in nodes):
        found = ", ".join(f"{node.get('CPU', 0):g} CPUs and {node.get('GPU', 0):g} GPUs" for node in nodes)
        raise ValueError(
            f"`cpus` and `gpus` must fit on a machine. Received: cpus={cpus}, gpus={gpus}, and machines with "
            f"{found}. Ask for less."
        )
