"""`inspect`: reads the contents of a model's folder, and runs nothing in it."""

import dataclasses
import json
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

_CURE = "Pass the folder that `export` wrote to, such as 'saved_models/digits'."
_META_GRAPHS = (2, 2)  # number of the field, and protobuf's wire type of a message


@dataclasses.dataclass(frozen=True)
class SavedVersion:
    """One version of a model.

    Attributes:
        version: The number of the version.
        path: The folder of the version.
        signatures: For each signature a dict with three keys. `method` is the call of TensorFlow Serving that
            the signature answers: `predict` or `classify`. `inputs` and `outputs` map each name to its dtype
            and shape, such as `float32[?, 4]`; a `?` is a free axis.
        bytes: The size of all files of the version together.
        warmup_records: The number of requests that a server replays when it loads the version.
        row_wise: The names of the signatures that are proven to be row-wise, sorted. A row-wise signature
            gives a row the same answer alone and next to other rows, so a server may run several requests
            together.
        alone: For each other signature the reason why it is not proven. A server runs each of its requests
            alone.
        tensorflow: The TensorFlow version that wrote the folder.
        serving: The releases of TensorFlow Serving that can serve the version, in a sentence.
        error: Why the version cannot be read. Empty if it can be read.
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

    def to_json(self) -> str:
        """Returns the fields as JSON, indented by two spaces."""
        return json.dumps(self.to_dict(), indent=2)

    def __str__(self) -> str:
        """Formats the version as lines, two for each signature."""
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
    """The report of `inspect` about a model's folder.

    `print(report)` shows the same lines as the command `initx inspect`.

    Attributes:
        path: The model's folder.
        versions: The versions in the folder, the highest number first. A server takes the first version
            unless its configuration names another one.
    """

    path: str
    versions: tuple[SavedVersion, ...]

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as a dict, with a dict for each version."""
        return dataclasses.asdict(self)

    def to_json(self) -> str:
        """Returns the report as JSON: the text that `initx inspect --json` prints."""
        return json.dumps(self.to_dict(), indent=2)

    def __str__(self) -> str:
        """Formats the versions, one below the other."""
        return "\n".join(map(str, self.versions))


def inspect(path: str | os.PathLike[str]) -> SavedModelFolder:
    """Reports the versions and signatures in a model's folder, without loading or running any of them.

    A SavedModel is a program. Use `inspect`, not a loader, to look at a SavedModel that you do not trust.

    >>> import tempfile
    >>> import keras
    >>> import keras_initx as initx
    >>> model = keras.Sequential([keras.layers.Input((4,), name="x"), keras.layers.Dense(2, name="y")])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = initx.export(model, folder)
    ...     report = initx.inspect(folder)
    >>> report.versions[0].version, report.versions[0].row_wise
    (1, ('serve', 'serving_default'))
    >>> report.versions[0].signatures["serving_default"]
    {'method': 'predict', 'inputs': {'x': 'float32[?, 4]'}, 'outputs': {'y': 'float32[?, 2]'}}

    Args:
        path: The model's folder: the same path that `export` takes, such as `saved_models/digits`. Versions
            are its subfolders with whole numbers as names.

    Returns:
        The report. A version that cannot be read is in it, with the reason in `error`.

    Raises:
        ValueError: If `path` is not a local folder, or if the folder does not hold versions.
    """
    root = _folder(path)
    found = [entry for entry in root.iterdir() if entry.name.isascii() and entry.name.isdecimal()]
    folders = sorted((entry for entry in found if entry.is_dir()), key=lambda entry: -int(entry.name))
    if not folders:
        raise ValueError(
            "`path` must hold versions: folders with whole numbers as names. "
            f"Received: path={str(path)!r}, which holds none. {_cure(root)}"
        )
    return SavedModelFolder(str(root), tuple(_read(folder) for folder in folders))


def _folder(path: object) -> pathlib.Path:
    """Returns the path of a local folder, or raises ValueError."""
    rule = "`path` must be a model's folder."
    if not isinstance(path, str | os.PathLike) or not os.fspath(path):
        raise ValueError(f"{rule} Received: path={path!r}. {_CURE}")
    root = local(path, "Copy the model's folder to this machine, and inspect the copy.")
    if not root.is_dir():
        kind = "a file" if root.exists() else "which does not exist"
        raise ValueError(f"{rule} Received: path={str(path)!r}, {kind}. {_CURE}")
    return root


def _cure(root: pathlib.Path) -> str:
    """Tells the user which path to pass, or how to make a version, for a folder without versions."""
    # Three folders are often passed by mistake: a version, the parent of the models, and the folder that
    # `model.export` wrote, which holds saved_model.pb without a version folder around it.
    if (root / "saved_model.pb").exists():
        if root.resolve().name.isdecimal():
            return f"It is a version: pass {str(root.parent)!r}."
        return f"It is a SavedModel without a version folder: {_wrap(root)}"
    models = sorted({file.parents[1].name for file in root.glob("*/*/saved_model.pb")})
    if models:
        return f"It holds the models {models}: name one of them."
    bare = next(iter(sorted(file.parent for file in root.glob("*/saved_model.pb"))), None)
    if bare:
        return f"It holds {bare.name!r}, a SavedModel without a version folder: {_wrap(bare)}"
    return _CURE


def _wrap(folder: pathlib.Path) -> str:
    """Tells the user the command that moves a bare SavedModel into a folder for version 1."""
    model = folder.resolve()
    # `mv` cannot move a folder into itself, so the folder is first moved aside.
    path, aside = shlex.quote(str(model)), shlex.quote(f"{model}.1")
    return f"`mv {path} {aside} && mkdir {path} && mv {aside} {path}/1`, and inspect {str(model)!r}."


def _read(folder: pathlib.Path) -> SavedVersion:
    """Reads one version from its files. Parsing a protobuf message runs no code of the model."""
    from google.protobuf.message import DecodeError

    version, size = int(folder.name), sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    try:
        graph = _read_graph(folder / "saved_model.pb")
        records = _count_records(folder / WARMUP)
    except (OSError, DecodeError, IndexError) as error:
        # One broken version must not hide the others: its report carries the reason.
        reason = "saved_model.pb holds no graph" if isinstance(error, IndexError) else str(error)
        return SavedVersion(version, str(folder), bytes=size, error=reason)
    written = graph.meta_info_def.tensorflow_version
    # TensorFlow adds `__saved_model_init_op`, which no client calls.
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
    """Returns the dtype and shape of each tensor as text, such as `float32[?, 4]`."""
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
    """Counts the records of a TFRecord file, by the lengths alone: the requests are not parsed.

    A record is a length (8 bytes), the length's checksum (4 bytes), the data, and their checksum (4 bytes).
    """
    content, place, records = file.read_bytes() if file.exists() else b"", 0, 0
    while place < len(content):
        place += 16 + int.from_bytes(content[place : place + 8], "little")
        records += 1
    if place != len(content):
        raise OSError(f"{WARMUP} ends within a record")
    return records


def _serving(version: str) -> str:
    """Applies the rule of TensorFlow's guide to version compatibility to one version of TensorFlow."""
    major, minor, *_ = [*version.split("."), "", ""]
    if not (major.isdecimal() and minor.isdecimal()):
        return (
            "saved_model.pb does not name the TensorFlow that wrote it: try the version on your release of "
            "TensorFlow Serving."
        )
    return (
        f"Safe with TensorFlow Serving {major}.{minor} and later {major}.x: TensorFlow promises that a newer "
        "binary reads an older model, not the reverse. Try it on an older release before you rely on it."
    )
