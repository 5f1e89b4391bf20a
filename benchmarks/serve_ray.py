"""The server on Ray: the cost of a killed replica, and of a killed node."""

import contextlib
import importlib.util
import os
import pathlib
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

from serve_faults import CLIENTS, Cell, told, wait_for
from serve_proc import resident, tree
from serve_setup import Bench, NotMeasuredError, Server

STALL = 3.0
STRENGTH = 30.0
REPLICAS = 2
# Starts a head and a second node for the replicas, and prints the address and the second node's raylet.
CLUSTER = """
import sys
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
node = cluster.add_node(num_cpus=2)
cluster.wait_for_nodes()
print("node", cluster.address, node.all_processes["raylet"][0].process.pid, flush=True)
sys.stdin.read()
"""


def need(bench: Bench) -> None:
    if not bench.ray:
        raise NotMeasuredError("asked for with --ray")
    if importlib.util.find_spec("ray") is None:
        raise NotMeasuredError("ray is not installed")


def replicas(root: int) -> dict[int, float]:
    """Returns the descendants of a process that Ray has named as replicas, with their resident MiB."""
    found = {}
    for pid in tree(root):
        with contextlib.suppress(OSError):
            if b"ServeReplica:initx" in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes():
                found[pid] = resident(pid)
    return found


def kill_under_load(bench: Bench, server: Server, root: int, victims: Any) -> list[Cell]:
    """Kills the processes of `victims` while clients run, and waits for as many replicas as before."""
    load = bench.load(server, clients=CLIENTS, seconds=90)
    load.started()
    time.sleep(2)
    before = replicas(root)
    if len(before) < REPLICAS:
        raise RuntimeError(f"{len(before)} replicas found. Ray says: {server.log.read_text()[-200:]}")
    # Ray names a new replica before the replica has TensorFlow and its models.
    grown = 0.9 * min(before.values())
    for pid in victims(before):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    back = wait_for(lambda: sum(size >= grown for size in replicas(root).values()) >= REPLICAS, 60)
    time.sleep(2)
    result = load.stop()
    server.stop()
    failed = sum(result["failures"].values()) + result["wrong"]
    when = "never at full strength" if back is None else f"full strength after {back:.1f} s"
    met = failed <= CLIENTS and not result["wrong"] and back is not None and back <= STRENGTH
    return [(f"{told(result)}; stall {result['stall']:.1f} s; {when}", met and result["stall"] <= STALL)]


def ray_replica(bench: Bench) -> list[Cell]:
    need(bench)
    server = bench.serve("--ray", "--replicas", str(REPLICAS))
    server.wait()
    return kill_under_load(bench, server, server.pid, lambda before: [min(before)])


@contextlib.contextmanager
def cluster(environment: dict[str, str]) -> Iterator[tuple[int, str, int]]:
    """Runs two nodes. Yields the pid of their parent, their address, and the raylet of the second node."""
    process = subprocess.Popen(
        [sys.executable, "-c", CLUSTER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    )
    try:
        _, address, raylet = next(line for line in process.stdout if line.startswith("node ")).split()
        yield process.pid, address, int(raylet)
    finally:
        for pid in reversed(tree(process.pid)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait(10)


def ray_node(bench: Bench) -> list[Cell]:
    need(bench)
    from keras_initx.serving import _ray_cluster

    # The sockets of HAProxy need a short path.
    with tempfile.TemporaryDirectory(dir="/tmp") as home:
        environment = os.environ | _ray_cluster.environment(home) | {"RAY_AUTH_TOKEN": secrets.token_hex(32)}
        try:
            with cluster(environment) as (pid, address, raylet):
                options = "--ray", "--replicas", str(REPLICAS), "--ray-address", address
                server = bench.serve(*options, env=environment)
                server.wait()
                return kill_under_load(bench, server, pid, lambda _: tree(raylet))
        finally:
            _ray_cluster.kill_haproxies(home, signal.SIGKILL)


BOUND = f"only requests in flight fail, stall {STALL:.0f} s, full strength within {STRENGTH:.0f} s"
MEASURES = {
    ray_replica: [("Ray: replica killed -9, 8 clients", BOUND)],
    ray_node: [("Ray: node killed -9, 8 clients", BOUND)],
}
