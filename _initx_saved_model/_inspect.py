"""What a model's folder holds, read without running it."""

import dataclasses
import os
import pathlib
import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from _initx_saved_model._paths import WARMUP, local
from _initx_saved_model._proof import read_proof

if TYPE_CHECKING:
    from tensorboard.compat.proto.meta_graph_pb2 import MetaGraphDef, TensorInfo

__all__ = ["SavedModelFolder", "SavedVersion", "inspect"]

_META_GRAPHS = (2, 2)  # number of the field, and protobuf's wire type of a message


@dataclasses.dataclass(frozen=True)
class SavedVersion:
    """One version of a model.

    Attributes:
        version: Its number.
        path: Its folder.
        signatures: For each signature its `method` (the last word of TensorFlow Serving's name for it), and
            the `inputs` and `outputs`: names with dtype and shape, such as `float32[?, 4]`.
        bytes: Size of all its files.
        warmup_records: Requests that a server replays as it loads the version.
        row_wise: Names of the signatures that are proven to answer a row as they answer it alone, sorted.
        alone: For each other signature why it is not, so that a server runs each of its requests alone.
        tensorflow: The version of TensorFlow that wrote it.
        serving: With which releases of TensorFlow Serving it is safe, in a sentence.
        error: Why it cannot be read, empty if it can.
    """

    version: int
    path: str
    signatures: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    bytes: int = 0
    warmup_records: int = 0
    row_wise: tuple[str, ...] = ()
    alone: dict[str, str] = dataclasses.field(default_factory=dict)
    tensorflow: str = ""
    serving: str = ""
    error: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as a dict."""
        return dataclasses.asdict(self)

    def __str__(self) -> str:
        """Formats the version as lines."""
        head = f"version {self.version}: {self.bytes / 2**20:.1f} MiB in {self.path}"
        if self.error:
            return f"{head}\n  cannot be read: {self.error}"
        lines = [head, f"  written by TensorFlow {self.tensorflow}; warm-up records: {self.warmup_records}"]
        for name, facts in self.signatures.items():
            sides = [
                ", ".join(f"{key} {kind}" for key, kind in facts[side].items())
                for side in ("inputs", "outputs")
            ]
            lines.append(f"  {name} ({facts['method']}): {sides[0]} -> {sides[1]}")
            batched = "row-wise" if name in self.row_wise else f"not row-wise: {self.alone.get(name, '')}"
            lines.append(f"    {batched}")
        return "\n".join([*lines, f"  {self.serving}"])


@dataclasses.dataclass(frozen=True)
class SavedModelFolder:
    """What `inspect` found.

    Attributes:
        path: The model's folder.
        versions: Its versions, the highest first: the one that a server takes unless it is told another.
    """

    path: str
    versions: tuple[SavedVersion, ...]

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as a dict."""
        return dataclasses.asdict(self)

    def __str__(self) -> str:
        """Formats the versions, one below the other."""
        return "\n".join(map(str, self.versions))


def inspect(path: str | os.PathLike[str]) -> SavedModelFolder:
    """Reads what a model's folder holds, without running or loading any of it.

    A SavedModel is a program: look at one that you do not trust with this, not with a loader.

    >>> import tempfile
    >>> import keras
    >>> from keras_initx.saved_model import export
    >>> model = keras.Sequential([keras.layers.Input((4,), name="x"), keras.layers.Dense(2, name="y")])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = export(model, folder)
    ...     print(inspect(folder).versions[0].signatures["serving_default"])
    {'method': 'predict', 'inputs': {'x': 'float32[?, 4]'}, 'outputs': {'y': 'float32[?, 2]'}}

    Args:
        path: The model's folder, as `export` takes it.

    Returns:
        Its versions with their signatures, sizes, the TensorFlow that wrote them, and where they are safe.

    Raises:
        ValueError: If it is no folder of versions.
    """
    if not isinstance(path, str | os.PathLike) or not os.fspath(path) or not local(path).is_dir():
        raise ValueError(f"`path` must be a model's folder. Received: path={str(path)!r}, which is none.")
    root = pathlib.Path(path)
    found = [entry for entry in root.iterdir() if entry.name.isascii() and entry.name.isdecimal()]
    folders = sorted((entry for entry in found if entry.is_dir()), key=lambda entry: -int(entry.name))
    if not folders:
        raise ValueError(
            f"`path` must hold versions, folders with whole numbers as names. Received: {str(path)!r}."
            + _cure(root)
        )
    return SavedModelFolder(str(root), tuple(_read(folder) for folder in folders))


def _cure(root: pathlib.Path) -> str:
    """What to pass, or to do, where a folder holds no versions."""
    bare = next(iter(sorted(file.parent for file in root.glob("*/saved_model.pb"))), None)
    if (root / "saved_model.pb").exists():
        if root.resolve().name.isdecimal():
            return f" It is a version: pass {str(root.parent)!r}."
        return f" It is a SavedModel without a version folder: {_wrap(root)}"
    models = sorted({file.parents[1].name for file in root.glob("*/*/saved_model.pb")})
    if models:
        return f" It holds the models {models}: name one of them."
    return f" It holds {bare.name!r}, a SavedModel without a version folder: {_wrap(bare)}" if bare else ""


def _wrap(folder: pathlib.Path) -> str:
    model = folder.resolve()
    path, aside = shlex.quote(str(model)), shlex.quote(f"{model}.1")
    return f"`mv {path} {aside} && mkdir {path} && mv {aside} {path}/1`, and inspect {str(model)!r}."


def _read(folder: pathlib.Path) -> SavedVersion:
    from google.protobuf.message import DecodeError

    version, size = int(folder.name), sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    try:
        graph = _read_graph(folder / "saved_model.pb")
        records = _count_records(folder / WARMUP)
    except (OSError, DecodeError, IndexError) as error:
        reason = "saved_model.pb holds no graph" if isinstance(error, IndexError) else str(error)
        return SavedVersion(version, str(folder), bytes=size, error=reason)
    written = graph.meta_info_def.tensorflow_version
    names = sorted(name for name in graph.signature_def if not name.startswith("__"))
    proven, reasons, otherwise = read_proof(folder)
    return SavedVersion(
        version=version,
        path=str(folder),
        signatures={
            name: {
                "method": signature.method_name.rpartition("/")[2],
                "inputs": _tensors(signature.inputs),
                "outputs": _tensors(signature.outputs),
            }
            for name, signature in ((name, graph.signature_def[name]) for name in names)
        },
        bytes=size,
        warmup_records=records,
        row_wise=tuple(name for name in names if name in proven),
        alone={name: reasons.get(name, otherwise) for name in names if name not in proven},
        tensorflow=written,
        serving=_serving(written),
    )


def _read_graph(file: pathlib.Path) -> "MetaGraphDef":
    """Returns the first graph of a SavedModel, without TensorFlow.

    Raises:
        IndexError: If the SavedModel does not hold a graph.
    """
    # TensorFlow's own class takes seconds to import. TensorBoard has copies of TensorFlow's messages that
    # import alone. It lacks the outermost message only, so the fields of that one are read by their numbers:
    #
    #     message SavedModel { int64 saved_model_schema_version = 1; repeated MetaGraphDef meta_graphs = 2; }
    from google.protobuf.empty_pb2 import Empty
    from google.protobuf.unknown_fields import UnknownFieldSet
    from tensorboard.compat.proto.meta_graph_pb2 import MetaGraphDef

    fields = UnknownFieldSet(Empty.FromString(file.read_bytes()))
    graphs = [one.data for one in fields if (one.field_number, one.wire_type) == _META_GRAPHS]
    return MetaGraphDef.FromString(graphs[0])


def _dtype(number: int) -> str:
    """Returns the name that `tf.as_dtype` gives to a value of TensorFlow's enum `DataType`."""
    from tensorboard.compat.proto.types_pb2 import DataType

    try:
        word = DataType.Name(number).removeprefix("DT_").lower()  # such as DT_INT32, or DT_INT32_REF
    except ValueError:
        return f"DataType({number})"  # a type of a later TensorFlow
    kind, mark, _ = word.partition("_ref")
    return {"float": "float32", "double": "float64", "half": "float16"}.get(kind, kind) + mark


def _tensors(infos: "Mapping[str, TensorInfo]") -> dict[str, str]:
    return {
        name: _dtype(info.dtype)
        + (
            "[...]"
            if info.tensor_shape.unknown_rank
            else str([axis.size for axis in info.tensor_shape.dim]).replace("-1", "?")
        )
        for name, info in sorted(infos.items())
    }


def _count_records(file: pathlib.Path) -> int:
    """Counts the records of a TFRecord file: a length of 8 bytes, 4 of checksum, the data, 4 of checksum."""
    content, place, records = file.read_bytes() if file.exists() else b"", 0, 0
    while place < len(content):
        place += 16 + int.from_bytes(content[place : place + 8], "little")
        records += 1
    if place != len(content):
        raise OSError(f"{WARMUP} ends within a record")
    return records


def _serving(version: str) -> str:
    """The rule of TensorFlow's guide to version compatibility, for one version."""
    major, minor, *_ = [*version.split("."), "", ""]
    if not (major.isdecimal() and minor.isdecimal()):
        return "It does not tell which TensorFlow wrote it: try it on your release of TensorFlow Serving."
    return (
        f"Safe with TensorFlow Serving {major}.{minor} and later {major}.x: TensorFlow promises that a newer "
        "binary reads an older model, not the reverse. Try it on an older release before you rely on it."
    )
