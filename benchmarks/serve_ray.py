"""The server on Ray: what a killed replica, and a killed node, cost."""

import contextlib
import importlib.util
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

from serve_faults import CLIENTS, Cell, told, wait_for
from serve_proc import tree
from serve_setup import Bench, NotMeasuredError, Server

STALL = 3.0
STRENGTH = 30.0
REPLICAS = 2
# A head and two nodes whose replicas Ray spreads; it names the address and the last node's processes.
CLUSTER = """
import sys
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
node = cluster.add_node(num_cpus=2)
cluster.wait_for_nodes()
(raylet,) = node.all_processes["raylet"]
print(cluster.address, raylet.process.pid, flush=True)
sys.stdin.read()
"""


def need(bench: Bench) -> None:
    if not bench.ray:
        raise NotMeasuredError("asked for with --ray")
    if importlib.util.find_spec("ray") is None:
        raise NotMeasuredError("ray is not installed")


def replicas(root: int) -> set[int]:
    """Returns the processes below one that Ray has named as replicas."""
    found = set()
    for pid in tree(root):
        with contextlib.suppress(OSError):
            if b"ServeReplica" in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes():
                found.add(pid)
    return found


def kill_under_load(bench: Bench, server: Server, root: int, victims: Any) -> list[Cell]:
    """Kills what `victims` returns while clients run, and waits for as many replicas as before."""
    load = bench.load(server, clients=CLIENTS, seconds=90)
    load.started()
    time.sleep(2)
    before = replicas(root)
    if len(before) < REPLICAS:
        raise RuntimeError(f"{len(before)} replicas found. Ray says: {server.log.read_text()[-200:]}")
    for pid in victims(before):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    back = wait_for(lambda: len(replicas(root)) >= REPLICAS and replicas(root) - before, 60)
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
def cluster() -> Iterator[tuple[int, str, int]]:
    """Runs two nodes; yields the pid above them, their address, and the second one's raylet."""
    process = subprocess.Popen(
        [sys.executable, "-c", CLUSTER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        address, raylet = process.stdout.readline().split()
        yield process.pid, address, int(raylet)
    finally:
        for pid in reversed(tree(process.pid)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait(10)


def ray_node(bench: Bench) -> list[Cell]:
    need(bench)
    with cluster() as (pid, address, raylet):
        environment = os.environ | {"RAY_ADDRESS": address}
        server = bench.serve("--ray", "--replicas", str(REPLICAS), env=environment)
        server.wait()
        return kill_under_load(bench, server, pid, lambda _: tree(raylet))


BOUND = f"only requests in flight fail, stall {STALL:.0f} s, full strength within {STRENGTH:.0f} s"
MEASURES = {
    ray_replica: [("Ray: replica killed -9, 8 clients", BOUND)],
    ray_node: [("Ray: node killed -9, 8 clients", BOUND)],
}
