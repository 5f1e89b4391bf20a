"""Which models are served, which of their versions, and under which labels."""

import dataclasses
import os
import pathlib
import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from keras_initx.serving._batching import Limits
from keras_initx.serving._folders import explain, holds_saved_model, version_folders

__all__ = ["ModelConfig", "configs_of", "find_models", "read_batching", "read_models"]


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """One model to serve.

    Attributes:
        name: What requests call it.
        base_path: The folder of its version folders.
        policy: A number n for the n highest versions, `"all"`, or the set of versions to serve.
        labels: Versions by label; requests may name a label instead of a version.
        root: The folder that no version may lie outside of, links followed; `base_path` when None.
    """

    name: str
    base_path: str
    policy: int | Literal["all"] | frozenset[int] = 1
    labels: Mapping[str, int] = dataclasses.field(default_factory=dict)
    root: str | None = None

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError(f"`name` must not be empty. Received: {self}. Name the model.")
        if "://" in self.base_path or not self.base_path:
            raise ValueError(
                f"`base_path` must be a local folder. Received: base_path={self.base_path!r} of model "
                f"{self.name!r}. Mount or copy it."
            )
        if (isinstance(self.policy, int) and self.policy < 1) or self.policy == frozenset():
            raise ValueError(
                f"`policy` must be a number from 1, 'all', or at least one version. Received: "
                f"policy={self.policy!r} of model {self.name!r}. Leave it out for the latest version."
            )
        for label in self.labels:
            if not re.fullmatch("[a-zA-Z0-9_]+", label):
                raise ValueError(
                    f"`labels` must be made of letters, digits and underscores. Received: {label!r} of model "
                    f"{self.name!r}. Rename it."
                )

    @property
    def boundary(self) -> str:
        """The folder that no version may lie outside of."""
        return self.root or self.base_path

    def wanted(self, numbers: Iterable[int]) -> list[int]:
        """Those of `numbers` that the policy serves, the highest first."""
        found = sorted(numbers, reverse=True)
        if isinstance(self.policy, int):
            return found[: self.policy]
        return found if self.policy == "all" else [number for number in found if number in self.policy]


def find_models(root: str | os.PathLike[str]) -> list[ModelConfig]:
    """Lists what a folder serves: the latest version of each model in it.

    Each subfolder that holds a version folder is a model of the subfolder's name. So is a SavedModel that
    lacks its version folder: it cannot be served, and the model's status says how to mend it. A root that
    holds version folders itself is one model, of the root's name.

    Raises:
        ValueError: There is no such folder.
        OSError: It cannot be read.
    """
    root = os.path.abspath(root)  # noqa: PTH100 -- links stay as they are
    if not os.path.isdir(root):  # noqa: PTH112
        raise ValueError(f"`root` must be a folder. Received: root={root!r}. Export a model there first.")
    if holds_saved_model(root):
        raise ValueError(
            f"`root` must be the folder of models, or of one model's versions. Received: root={root!r}. "
            f"{explain(root)}."
        )
    if version_folders(root)[0]:
        return [ModelConfig(pathlib.Path(root).name, root)]
    folders = sorted(path for path in pathlib.Path(root).iterdir() if path.is_dir() and path.name[0] != ".")
    return [ModelConfig(path.name, str(path), root=root) for path in folders if _is_model(path)]


def _is_model(path: pathlib.Path) -> bool:
    try:
        return bool(version_folders(str(path))[0]) or holds_saved_model(str(path))
    except OSError:  # not ours to read
        return False


def read_models(path: str | os.PathLike[str]) -> list[ModelConfig]:
    """Reads a TensorFlow Serving model config file, the text of a `ModelServerConfig`.

    Relative base paths start from the file's folder. `logging_config` is left out of account.

    Raises:
        ValueError: The file is no such text, or asks for what cannot be served; it is named.
        OSError: It cannot be read.
    """
    from tensorflow_serving.config import model_server_config_pb2

    message = _parse(path, model_server_config_pb2.ModelServerConfig())
    try:
        return configs_of(message, os.path.dirname(os.path.abspath(path)))  # noqa: PTH100, PTH120
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def configs_of(message: Any, folder: str = "/") -> list[ModelConfig]:
    """Reads a `ModelServerConfig` message, such as a HandleReloadConfigRequest carries.

    A client that may send one chooses folders of this machine to run: let only those that are trusted.

    Args:
        message: The message.
        folder: Where relative base paths start.

    Raises:
        ValueError: It asks for what cannot be served.
    """
    if not message.HasField("model_config_list"):
        raise ValueError(
            f"`model_config_list` must be given. Received: {str(message)[:200]!r}. List the models in it; "
            "`custom_model_config` is not known here."
        )
    configs = [_config(config, folder) for config in message.model_config_list.config]
    names = [config.name for config in configs]
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise ValueError(
            f"`name` must be another one for each model. Received twice: {doubled}. Rename them."
        )
    return configs


def _config(message: Any, folder: str) -> ModelConfig:
    if message.model_platform not in ("", "tensorflow") or message.model_type not in (0, 1):
        raise ValueError(
            "`model_platform` must be 'tensorflow'. Received: "
            f"model_platform={message.model_platform!r} of model {message.name!r}. Export a SavedModel."
        )
    path = message.base_path
    if path and "://" not in path:
        path = os.path.join(folder, path)  # noqa: PTH118
    return ModelConfig(
        message.name, path, _policy(message.model_version_policy), dict(message.version_labels)
    )


def _policy(message: Any) -> int | Literal["all"] | frozenset[int]:
    kind = message.WhichOneof("policy_choice")
    if kind == "specific":
        return frozenset(message.specific.versions)
    return "all" if kind == "all" else message.latest.num_versions or 1


def read_batching(path: str | os.PathLike[str]) -> dict[str, int]:
    """Reads a TensorFlow Serving batching file, the text of a `BatchingParameters`, as keywords of `Models`.

    The largest batch is `max_execution_batch_size` where `enable_large_batch_splitting` is true, and else
    `max_batch_size`. That size times `max_enqueued_batches` is the number of requests that may wait. The file
    turns no batching on: that is for the proof of a signature, or for the file of one version. Timeouts,
    threads, `allowed_batch_sizes` and padding are left out of account: no batch waits for a timer, and any
    size can be run.

    Raises:
        ValueError: The file is no such text; it is named.
        OSError: It cannot be read.
    """
    message = _parse(path, _batching_parameters())
    limits: dict[str, int] = {}
    splits = message.enable_large_batch_splitting.value and message.HasField("max_execution_batch_size")
    size = "max_execution_batch_size" if splits else "max_batch_size"
    if message.HasField(size):
        limits["max_batch_rows"] = getattr(message, size).value
    if message.HasField("max_enqueued_batches"):
        rows = limits.get("max_batch_rows", Limits.max_batch_rows)
        limits["max_queue"] = message.max_enqueued_batches.value * rows
    for name, value in limits.items():
        if value < 1:
            raise ValueError(f"{path}: sizes must be at least 1. Received: {name}={value}. Leave it out.")
    return limits


def _batching_parameters() -> Any:
    """An empty `BatchingParameters`: the message is in no Python package, so its fields stand here."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, wrappers_pb2

    file = descriptor_pb2.FileDescriptorProto(
        name="initx_batching.proto", package="initx", dependency=[wrappers_pb2.DESCRIPTOR.name]
    )
    message = file.message_type.add(name="BatchingParameters")
    wrapped = {
        "max_batch_size": (1, "Int64Value"),
        "batch_timeout_micros": (2, "Int64Value"),
        "max_enqueued_batches": (3, "Int64Value"),
        "num_batch_threads": (4, "Int64Value"),
        "thread_pool_name": (5, "StringValue"),
        "enable_large_batch_splitting": (8, "BoolValue"),
        "max_execution_batch_size": (9, "Int64Value"),
    }
    for name, (number, kind) in wrapped.items():
        message.field.add(name=name, number=number, label=1, type=11, type_name=f".google.protobuf.{kind}")
    message.field.add(name="allowed_batch_sizes", number=6, label=3, type=3)
    message.field.add(name="pad_variable_length_inputs", number=7, label=1, type=8)
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("initx.BatchingParameters"))()


def _parse(path: str | os.PathLike[str], message: Any) -> Any:
    from google.protobuf import text_format

    try:
        return text_format.Parse(pathlib.Path(path).read_text("utf-8"), message)
    except (text_format.ParseError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{path} must be the text of a {message.DESCRIPTOR.name}. Received: {error}. Mend that line."
        ) from error
