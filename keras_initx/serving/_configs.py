"""The configuration of the models: names, folders, versions and labels.

It comes from a folder (`find_models`), from a TensorFlow Serving model config file (`read_models`), or from a
message that a client sends (`configs_of`).
"""

import collections
import dataclasses
import os
import pathlib
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Literal, TypeVar

from keras_initx.serving._folders import explain, holds_saved_model, version_folders
from keras_initx.serving._limits import Limits

if TYPE_CHECKING:
    from google.protobuf.message import Message
    from tensorflow_serving.config.file_system_storage_path_source_pb2 import (
        FileSystemStoragePathSourceConfig,
    )
    from tensorflow_serving.config.model_server_config_pb2 import ModelConfig as ModelConfigMessage
    from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

__all__ = ["ModelConfig", "check_distinct", "configs_of", "find_models", "read_batching", "read_models"]

_MessageT = TypeVar("_MessageT", bound="Message")


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """One model to serve.

    Attributes:
        name: The name in the requests.
        base_path: The folder that holds the version folders.
        policy: The versions to serve: a number n for the n highest, `"all"`, or the set of their numbers.
        labels: Version numbers by label. A request may name a label instead of a version.
        root: The folder that must contain every version after links are followed. None takes `base_path`.

    Raises:
        ValueError: If the name is empty, the folder is not a local path, the policy asks for no version, or a
            label has other characters than letters, digits and underscores.
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
        """The folder that must contain every version after links are followed."""
        return self.root or self.base_path

    def wanted(self, numbers: Iterable[int]) -> list[int]:
        """Returns the versions among `numbers` that the policy serves, the highest first."""
        found = sorted(numbers, reverse=True)
        if isinstance(self.policy, int):
            return found[: self.policy]
        return found if self.policy == "all" else [number for number in found if number in self.policy]


def find_models(root: str | os.PathLike[str]) -> list[ModelConfig]:
    """Lists the models in a folder, each with the policy "latest version".

    A subfolder that holds version folders is a model, named as the subfolder. If the root itself holds
    version folders, it is the only model, named as the root. A subfolder that is a SavedModel without a
    version folder is listed too: it cannot be served, and its status says how to mend it.

    Args:
        root: The folder.

    Raises:
        ValueError: If there is no such folder, or if it is a SavedModel itself.
        OSError: If the folder cannot be read.
    """
    # Not `Path.resolve`: the name of a linked folder is the link's name.
    root = os.path.abspath(root)  # noqa: PTH100
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
    except OSError:  # a folder that this user may not read is no model of this server
        return False


def read_models(path: str | os.PathLike[str]) -> list[ModelConfig]:
    """Reads a TensorFlow Serving model config file, which is the text of a `ModelServerConfig`.

    A relative base path starts from the file's folder. `logging_config` is ignored.

    Args:
        path: The file.

    Raises:
        ValueError: If the file does not hold such a text, or if it configures something that this server
            cannot serve. The message names the file.
        OSError: If the file cannot be read.
    """
    from tensorflow_serving.config import model_server_config_pb2

    message = _parse(path, model_server_config_pb2.ModelServerConfig())
    try:
        return configs_of(message, os.path.dirname(os.path.abspath(path)))  # noqa: PTH100, PTH120
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def configs_of(message: "ModelServerConfig", folder: str = "/") -> list[ModelConfig]:
    """Reads a `ModelServerConfig` message, such as a HandleReloadConfigRequest carries.

    A client that sends such a message chooses folders of this machine to run. Let only trusted clients send
    it.

    Args:
        message: The message.
        folder: The folder where relative base paths start.

    Raises:
        ValueError: If the message configures something that this server cannot serve.
    """
    if not message.HasField("model_config_list"):
        raise ValueError(
            f"`model_config_list` must be given. Received: {str(message)[:200]!r}. List the models in it: "
            "this server does not know `custom_model_config`."
        )
    configs = [_config(config, folder) for config in message.model_config_list.config]
    check_distinct(config.name for config in configs)
    return configs


def check_distinct(names: Iterable[str]) -> None:
    """Raises ValueError if two models have the same name."""
    counts = collections.Counter(names)
    doubled = sorted(name for name, count in counts.items() if count > 1)
    if doubled:
        raise ValueError(f"`name` must differ for each model. Received twice: {doubled}. Rename them.")


def _config(message: "ModelConfigMessage", folder: str) -> ModelConfig:
    # `model_type` is the older field: 0 is unset, 1 is TensorFlow.
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


def _policy(
    message: "FileSystemStoragePathSourceConfig.ServableVersionPolicy",
) -> int | Literal["all"] | frozenset[int]:
    kind = message.WhichOneof("policy_choice")
    if kind == "specific":
        return frozenset(message.specific.versions)
    # An unset number is 0 in a message. As in TensorFlow Serving, that means the latest version.
    return "all" if kind == "all" else message.latest.num_versions or 1


def read_batching(path: str | os.PathLike[str]) -> dict[str, int]:
    """Reads a TensorFlow Serving batching file, which is the text of a `BatchingParameters`.

    - `max_batch_size` becomes `max_batch_rows`. If `enable_large_batch_splitting` is true and
      `max_execution_batch_size` is given, that size is taken instead.
    - `max_enqueued_batches` times the size becomes `max_queue`, the number of requests that may wait.
    - Timeouts, threads, `allowed_batch_sizes` and padding are ignored: this server starts a batch without a
      timer, and can run any size.

    The file does not turn batching on. Only the proof of a signature or a file in the version's folder does.

    Args:
        path: The file.

    Returns:
        Keyword arguments for `Models`. A size that the file does not set is left out.

    Raises:
        ValueError: If the file does not hold such a text, or sets a size below 1. The message names the file.
        OSError: If the file cannot be read.
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


def _batching_parameters() -> "Message":
    """Returns an empty `BatchingParameters`. No Python package has this message, so its fields stand here."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, wrappers_pb2

    file = descriptor_pb2.FileDescriptorProto(
        name="initx_batching.proto", package="initx", dependency=[wrappers_pb2.DESCRIPTOR.name]
    )
    message = file.message_type.add(name="BatchingParameters")
    # Fields that `read_batching` ignores are here too: a file that sets them must parse.
    wrapped = {
        "max_batch_size": (1, "Int64Value"),
        "batch_timeout_micros": (2, "Int64Value"),
        "max_enqueued_batches": (3, "Int64Value"),
        "num_batch_threads": (4, "Int64Value"),
        "thread_pool_name": (5, "StringValue"),
        "enable_large_batch_splitting": (8, "BoolValue"),
        "max_execution_batch_size": (9, "Int64Value"),
    }
    # label 1 is optional, 3 is repeated; type 11 is a message, 3 an int64, 8 a bool.
    for name, (number, kind) in wrapped.items():
        message.field.add(name=name, number=number, label=1, type=11, type_name=f".google.protobuf.{kind}")
    message.field.add(name="allowed_batch_sizes", number=6, label=3, type=3)
    message.field.add(name="pad_variable_length_inputs", number=7, label=1, type=8)
    # A pool of its own: the default pool may get the real message from another package one day.
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("initx.BatchingParameters"))()


def _parse(path: str | os.PathLike[str], message: _MessageT) -> _MessageT:
    from google.protobuf import text_format

    try:
        return text_format.Parse(pathlib.Path(path).read_text("utf-8"), message)
    except (text_format.ParseError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{path} must be the text of a {message.DESCRIPTOR.name}. Received: {error}. Mend that line."
        ) from error
