"""Scale-out: the same models and the same protocol, in replicas behind Ray Serve's HAProxy.

    client --> HAProxy, on the ports of `serve`
                 |  sends each request to the replica that holds the fewest requests
                 +--> replica 1:  REST --> `Application` --+
                 |                gRPC --> `handlers`    --+--> `Models`: all models, watching the folder
                 +--> replica 2:  the same in another process, perhaps on another node
                 +--> ...

`serve_on_ray` starts a cluster (or connects to one), deploys the replicas and waits for a signal.
`_ray_cluster.py` starts and ends clusters, `_ray_replica.py` is the code inside a replica.

Nothing is shared between replicas. A replica that dies loses only the requests that it holds, and HAProxy
sends most of these to another replica. That is safe because a prediction changes nothing.
"""

import os
import signal
import threading
from collections.abc import Callable
from typing import Any

from keras_initx.extras import require_ray
from keras_initx.serving._configs import find_models
from keras_initx.serving._options import Options
from keras_initx.serving._ray_cluster import APP, connected, own_cluster
from keras_initx.serving._ray_replica import Replica, add_services
from keras_initx.serving._server import check_installed

__all__ = ["deploy", "serve_on_ray"]


def serve_on_ray(
    root: str | os.PathLike[str] | None = None,
    *,
    replicas: int = 2,
    max_replicas: int | None = None,
    ray_address: str | None = None,
    on_start: Callable[[], None] = lambda: None,
    config: str | None = None,
    batching: str | None = None,
    host: str = "127.0.0.1",
    rest_port: int = 8501,
    grpc_port: int = 8500,
    workers: int = 1,
    token_file: str | None = None,
    insecure: bool = False,
    tls_cert: str | None = None,
    tls_key: str | None = None,
    cors: bool = False,
    access_log: bool = False,
    poll_seconds: float = 1.0,
    timeout_seconds: float = 30.0,
    keep_alive_seconds: float = 75.0,
    max_body_bytes: int = 32 * 2**20,
    max_queue: int | None = None,
) -> int:
    """Serves as `serve` does, but in replicas of Ray Serve, until it is stopped.

    The call blocks. It needs Linux and the extra `ray`. Each replica is a process that holds all models and
    watches the folder itself. So the replicas take up a new version one after the other, within seconds.

    All files and folders are read on every node of the cluster: they need the same paths there.

    Args:
        root: The folder of the models, `root/<name>/<version>/`, or the folder of one model.
        replicas: The number of replicas. With `max_replicas`, the smallest number.
        max_replicas: The largest number of replicas. Ray then starts more replicas while more requests are in
            flight. None keeps the number fixed.
        ray_address: The address of a running cluster, or `"auto"` to find one. None starts a cluster on this
            machine.
        on_start: Called once all replicas answer.
        config: A TensorFlow Serving model config file, instead of `root`. With Ray, gRPC's
            HandleReloadConfigRequest cannot replace it.
        batching: A TensorFlow Serving batching parameters file, for the sizes of batches and queues.
        host: The address to listen on. Every address beyond this machine needs `token_file` or
            `insecure=True`. Ray opens further ports whatever the host is: see docs/serving_ray.md.
        rest_port: The port of the REST interface.
        grpc_port: The port of the gRPC interface.
        workers: Must stay 1. `replicas` takes its place.
        token_file: A file with the secret that clients must send as `Authorization: Bearer ...`. None admits
            every client.
        insecure: Whether the server may listen beyond this machine without a token.
        tls_cert: Must stay None. Put a proxy that ends TLS before the server.
        tls_key: Must stay None, as `tls_cert`.
        cors: Whether web pages of other origins may send requests.
        access_log: Whether each replica writes one line of JSON to stderr for each REST request.
        poll_seconds: Seconds between two looks at the folders. With 0, a replica looks at its start only.
        timeout_seconds: Seconds that a request may take.
        keep_alive_seconds: Must keep its default. HAProxy closes idle connections after 5 seconds.
        max_body_bytes: The largest request body in bytes (32 MiB).
        max_queue: The number of requests that may wait for a version of a model, in each replica. Further
            requests are refused with status 429. None takes the number from `batching`, or 1000.

    Returns:
        0, after SIGTERM or Ctrl-C. All requests that had been accepted are answered before.

    Raises:
        ImportError: If the extra `ray` is missing or too old.
        ValueError: If an option is wrong.
    """
    options = Options(
        root=_absolute(root),
        config=_absolute(config),
        batching=_absolute(batching),
        host=host,
        rest_port=rest_port,
        grpc_port=grpc_port,
        workers=workers,
        token_file=_absolute(token_file),
        insecure=insecure,
        tls_cert=tls_cert,
        tls_key=tls_key,
        cors=cors,
        access_log=access_log,
        poll_seconds=poll_seconds,
        timeout_seconds=timeout_seconds,
        keep_alive_seconds=keep_alive_seconds,
        max_body_bytes=max_body_bytes,
        max_queue=max_queue,
    )
    _check(options, replicas, max_replicas)
    if options.root is not None:
        find_models(options.root)  # only for its errors: before a cluster starts
    stop = threading.Event()
    with connected(ray_address) if ray_address else own_cluster(options, max_replicas or replicas):
        # Ray takes these signals for itself when it starts, so they are set after that.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        deploy(options, replicas, max_replicas)
        on_start()
        stop.wait()
    return 0


def _absolute(path: str | os.PathLike[str] | None) -> str | None:
    """Returns the absolute path: replicas start in folders of their own. None and "" stay as they are."""
    if path is None:
        return None
    return os.fspath(path) and os.path.abspath(path)  # noqa: PTH100


def _check(options: Options, replicas: int, max_replicas: int | None) -> None:
    check_installed()
    require_ray("`serve_on_ray`")
    if options.workers > 1 or options.tls_cert:
        raise ValueError(
            "`workers` and `tls_cert` are not for Ray. Received: "
            f"workers={options.workers}, tls_cert={options.tls_cert!r}. "
            "Give `replicas`, and put a proxy that ends TLS before it."
        )
    if options.keep_alive_seconds != Options.keep_alive_seconds:
        raise ValueError(
            "`keep_alive_seconds` is not for Ray, whose HAProxy closes idle connections after 5 seconds. "
            f"Received: keep_alive_seconds={options.keep_alive_seconds}. Leave it out."
        )
    if replicas < 1 or (max_replicas is not None and max_replicas < replicas):
        raise ValueError(
            "`replicas` must be at least 1, and `max_replicas` at least that. "
            f"Received: replicas={replicas}, max_replicas={max_replicas}. Choose other numbers."
        )


def deploy(options: Options, replicas: int = 2, max_replicas: int | None = None) -> None:
    """Starts the replicas on the cluster that this process is connected to, and waits until they answer.

    Args:
        options: The server's options.
        replicas: The number of replicas. With `max_replicas`, the smallest number.
        max_replicas: The largest number of replicas; None keeps the number fixed.
    """
    from ray import serve

    serve.start(
        proxy_location="HeadOnly",
        # A soft stop waits for idle connections too, so they are closed soon.
        http_options={"host": options.host, "port": options.rest_port, "keep_alive_timeout_s": 5},
        grpc_options={
            "port": options.grpc_port,
            # Ray imports the function by this name in each process that answers gRPC.
            "grpc_servicer_functions": [f"{add_services.__module__}.{add_services.__name__}"],
            "enable_reflection": False,
        },
    )
    scaling: dict[str, Any] = {"num_replicas": replicas}
    if max_replicas is not None:
        bounds = {"min_replicas": replicas, "max_replicas": max_replicas}
        scaling = {"autoscaling_config": bounds | {"target_ongoing_requests": 16}}
    ingress: Any = serve.ingress()(Replica)
    # Larger than the queue of the models. So the models refuse first, with status 429; Ray would answer 500.
    deployment = serve.deployment(ingress, name="models", max_ongoing_requests=4096, **scaling)
    serve.run(deployment.bind(options), name=APP, route_prefix="/")
