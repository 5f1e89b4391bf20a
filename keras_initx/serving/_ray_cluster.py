"""Clusters of Ray: one that lives as long as this server, or a running one that others own."""

import contextlib
import os
import pathlib
import secrets
import signal
import tempfile
import time
from collections.abc import Iterator

from keras_initx.serving._options import Options

__all__ = ["APP", "connected", "environment", "kill_haproxies", "own_cluster"]

APP = "initx"  # the name of the application in Ray Serve


def environment(home: str | os.PathLike[str]) -> dict[str, str]:
    """Returns the environment variables that Ray needs, when it is imported and when a node starts.

    Args:
        home: A private folder for HAProxy's files. Its path has at most 25 characters. Anyone who may write
            to the socket in this folder commands HAProxy.
    """
    return {
        "RAY_AUTH_MODE": "token",
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        # A prediction changes nothing. So a request that a dying replica left unanswered may be sent again.
        "RAY_SERVE_HAPROXY_RETRY_ON": "conn-failure empty-response",
        # A stopping replica stays this many seconds. HAProxy learns of the stop within a second.
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "5",
        # Ray's defaults are 9500 and 8500, and 8500 is TensorFlow Serving's port for gRPC.
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": os.environ.get("RAY_SERVE_FALLBACK_PROXY_HTTP_PORT", "8502"),
        "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": os.environ.get("RAY_SERVE_FALLBACK_PROXY_GRPC_PORT", "8503"),
        # Ray notices a dead node after five failed checks. With its default of 3 seconds each, that is late.
        "RAY_health_check_period_ms": "1000",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_worker_niceness": "0",
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": f"{home}/haproxy.cfg",
        "RAY_SERVE_HAPROXY_SOCKET_PATH": f"{home}/admin.sock",
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": f"{home}",
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": f"{home}/server-state",
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": f"{home}/metrics.sock",
    }


@contextlib.contextmanager
def own_cluster(options: Options, replicas: int) -> Iterator[None]:
    """Runs a cluster on this machine, which ends after all accepted requests are answered.

    Args:
        options: The server's options.
        replicas: The largest number of replicas that the cluster must hold.
    """
    # Directly under /tmp: a socket's path has at most 108 characters, and HAProxy's names are long already.
    with tempfile.TemporaryDirectory(prefix="initx-", dir="/tmp") as home:
        os.environ.update(environment(home))
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
        import ray  # only now: it reads the environment when it is imported

        # Ray reserves one CPU for each replica, and would wait forever on a machine with fewer.
        cpus = max(os.cpu_count() or 1, replicas)
        alone = {"include_dashboard": False, "log_to_driver": False, "_node_ip_address": "127.0.0.1"}
        ray.init("local", num_cpus=cpus, **alone)
        try:
            yield
            _drain(home, options.timeout_seconds + 5)
        finally:
            ray.shutdown()
            kill_haproxies(home, signal.SIGKILL)  # they outlive the processes that started them


@contextlib.contextmanager
def connected(address: str) -> Iterator[None]:
    """Connects to a running cluster, and at the end deletes only the deployed application.

    Args:
        address: The cluster's address, or `"auto"`.
    """
    import ray
    from ray import serve

    ray.init(address, log_to_driver=False)
    try:
        yield
        serve.delete(APP)  # each replica stays until HAProxy knows of it and its requests are answered
    finally:
        ray.shutdown()


def _drain(home: str, seconds: float) -> None:
    """Makes HAProxy accept nothing more, and waits until everything that it accepted is answered.

    `serve.shutdown` cannot do this: it kills HAProxy first.
    """
    end = time.monotonic() + seconds
    # SIGUSR1 asks HAProxy for a soft stop. It exits by itself once its last connection is closed.
    while kill_haproxies(home, signal.SIGUSR1) and time.monotonic() < end:
        time.sleep(0.1)


def kill_haproxies(home: str, number: int) -> int:
    """Sends a signal to all HAProxy processes that have their files in a folder.

    Args:
        home: The folder.
        number: The signal.

    Returns:
        How many processes there were.
    """
    found = 0
    # Ray starts them, so this process does not know their ids: their command lines tell.
    for entry in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # a process that has just ended, or that others own
            words = (entry / "cmdline").read_bytes().split(b"\0")
            if words[0].endswith(b"haproxy") and any(word.startswith(f"{home}/".encode()) for word in words):
                os.kill(int(entry.name), number)
                found += 1
    return found
