"""The server under load and faults, compared with a FastAPI server and an empty gRPC server in the same run.

Everything runs on the loopback and takes at most ten minutes. `--quick` takes two minutes, and prints the
table without keeping it. Rows about Ray need `--ray`.

`--url http://127.0.0.1:8501` with `--grpc-port` measures a server that runs already, such as TensorFlow
Serving. That server must serve FOLDER/models/digits, which an earlier run with `--folder FOLDER` has written.
"""

import argparse
import collections
import importlib.metadata
import pathlib
import shlex
import statistics
import sys
import tempfile
import time
import urllib.parse
from collections.abc import Callable

import report
import serve_faults
import serve_inputs
import serve_ray
from serve_proc import LISTEN, memory, proportional, sockets
from serve_setup import Bench, NotMeasuredError, Remote, Server, ask

# The result of a measurement, and whether the bound is met.
Cell = tuple[str, bool]

OURS = f"{sys.executable} -m keras_initx serve"
BUDGET = 540.0
CLIENTS = (1, 8, 32)
FASTER = {1: 0.9, 8: 2.0, 32: 3.0}
P99 = {1: 5.0, 32: 25.0}
OVER_ECHO = 0.6
MEMORY = 900
FIRST_ANSWER = 10.0


def first_answer(bench: Bench) -> list[Cell]:
    spent, unready = [], True
    for run in range(1 if bench.quick else 3):
        if run:
            bench.shared.stop()
        bench.shared = bench.serve()
        statuses = states_until_ready(bench.shared)
        bench.good(bench.shared)
        spent.append(time.monotonic() - bench.shared.begun)
        unready &= statuses == {503, 200}
    said = "/readyz 503 before" if unready else f"/readyz said {sorted(statuses)}"
    return [(f"{max(spent):.1f} s; {said}", max(spent) <= FIRST_ANSWER and unready)]


def states_until_ready(server: Server) -> set[int]:
    statuses: set[int] = set()
    while 200 not in statuses:
        server.check()
        if time.monotonic() - server.begun > 60:
            raise TimeoutError(f"/readyz said {sorted(statuses)} for a minute")
        try:
            statuses.add(ask(server.rest, "/readyz").status)
        except OSError:
            time.sleep(0.01)
    return statuses


def rates(bench: Bench) -> list[Cell]:
    """Measures rates and latencies in groups, with the servers in turn. Returns medians over groups."""
    groups, seconds = (1, 1.0) if bench.quick else (5, 3.0)
    ours, baseline, echo = bench.default(), bench.fastapi(), bench.echo()
    pairs = [((ours, "rest"), (baseline, "rest"), clients) for clients in CLIENTS]
    pairs.append(((ours, "grpc"), (echo, "echo"), 32))
    found: dict[tuple[str, int], list[list[dict]]] = collections.defaultdict(list)
    for group in range(groups):
        for *both, clients in pairs:
            order = both if group % 2 else both[::-1]
            results = [faultless(bench, *pair, clients, seconds) for pair in order]
            found[both[0][1], clients].append(results if group % 2 else results[::-1])
    for server in (baseline, echo):
        server.stop()
    cells = [compared(found["rest", clients], FASTER[clients], "rows/s") for clients in CLIENTS]
    for clients, bound in P99.items():
        p50, p99 = (
            statistics.median(ours[key] for ours, _ in found["rest", clients]) for key in ("p50", "p99")
        )
        cells.append((f"{p99:.1f} ms (p50 {p50:.1f} ms)", p99 <= bound))
    return [*cells, compared(found["grpc", 32], OVER_ECHO, "calls/s")]


def faultless(bench: Bench, server: Server, kind: str, clients: int, seconds: float) -> dict:
    result = bench.load(server, kind, clients=clients, seconds=seconds + 0.5).result()
    if result["failures"] or result["wrong"] or not result["answers"]:
        raise RuntimeError(
            f"{kind} with {clients} clients: {result['wrong']} wrong answers, {result['failures']}"
        )
    return result


def compared(results: list[list[dict]], bound: float, unit: str) -> Cell:
    ratios = [ours["rate"] / other["rate"] for ours, other in results]
    ratio = statistics.median(ratios)
    ours, other = (statistics.median(result[i]["rate"] for result in results) for i in (0, 1))
    spread = f"{min(ratios):.2f} to {max(ratios):.2f}; {ours:,.0f} over {other:,.0f} {unit}"
    return f"{ratio:.2f} ({spread})", ratio >= bound


def resident(bench: Bench) -> list[Cell]:
    server = bench.default()
    faultless(bench, server, "rest", 32, 1.5)
    used = memory(server.pid)
    return [(f"{used:.0f} MiB (PSS {proportional(server.pid):.0f})", used <= MEMORY)]


def open_sockets(bench: Bench) -> list[Cell]:
    server = bench.default()
    found = sorted(
        {
            (socket.host, socket.port, socket.protocol)
            for socket in sockets(server.pid)
            if socket.state == LISTEN or socket.protocol.startswith("udp")
        }
    )
    # The listener of gRPC is an IPv6 socket on the mapped IPv4 address.
    names = {server.rest: "REST", server.grpc: "gRPC"}
    shown = ", ".join(f"{host}:{names.get(port, port)} ({protocol})" for host, port, protocol in found)
    right = sorted((server.host, port) for port in names)
    return [(f"{len(found)}: {shown}", [pair for *pair, _ in map(list, found)] == list(map(list, right)))]


# Each function measures the rows next to it.
MEASURES: dict[Callable[[Bench], list[Cell]], list[tuple[str, str]]] = {
    first_answer: [("first good answer after start", f"{FIRST_ANSWER:.0f} s, /readyz 503 before")],
    rates: [
        *(
            (f"REST over FastAPI, concurrency {clients}", f"at least {FASTER[clients]}")
            for clients in CLIENTS
        ),
        *((f"REST p99, concurrency {clients}", f"at most {bound:.0f} ms") for clients, bound in P99.items()),
        ("gRPC Predict over an empty echo, concurrency 32", f"at least {OVER_ECHO}"),
    ],
    resident: [("memory, one small model", f"at most {MEMORY} MiB")],
    open_sockets: [("open sockets", "two, both on 127.0.0.1")],
    **serve_inputs.MEASURES,
    **serve_faults.MEASURES,
    **serve_ray.MEASURES,
}


def measure(bench: Bench, function: Callable[[Bench], list[Cell]], until: float) -> list[list[str]]:
    """Returns the rows of a function. If it fails, its rows say so, and the other functions go on."""
    rows = MEASURES[function]
    begun = time.monotonic()
    try:
        if time.monotonic() > until:
            raise NotMeasuredError("out of time")
        cells = [(text, "met" if met else "missed") for text, met in function(bench)]
    except NotMeasuredError as error:
        cells = [(f"not measured: {error}", "")] * len(rows)
    except Exception as error:
        text = " ".join(f"{type(error).__name__}: {error}".split()).replace("|", "/")
        cells = [(text[:300], "failed")] * len(rows)
    finally:
        bench.end_loads()
    table = [[what, text, bound, met] for (what, bound), (text, met) in zip(rows, cells, strict=True)]
    for row in table:
        print("; ".join(row), file=sys.stderr)
    print(f"{function.__name__}: {time.monotonic() - begun:.1f} s", file=sys.stderr, flush=True)
    return table


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="take two minutes, and keep no table")
    parser.add_argument("--ray", action="store_true", help="measure the rows about Ray, too")
    parser.add_argument(
        "--only", default="", help="run these functions (names with commas between them), and keep no table"
    )
    parser.add_argument(
        "--folder", type=pathlib.Path, help="the folder of the models; by default a temporary folder"
    )
    parser.add_argument("--url", help="measure only the rates of this running server, and keep no table")
    parser.add_argument("--grpc-port", type=int, default=8500, help="its gRPC port")
    parser.add_argument(
        "--server", default=OURS, help="the command that serves; with another command no table is kept"
    )
    return parser.parse_args()


def run(options: argparse.Namespace, folder: pathlib.Path) -> list[list[str]]:
    bench = Bench(folder, shlex.split(options.server), quick=options.quick, ray=options.ray)
    if not (folder / "models").exists():
        bench.prepare()
    functions = [f for f in MEASURES if not options.only or f.__name__ in options.only.split(",")]
    if options.url:
        url = urllib.parse.urlsplit(options.url)
        bench.shared = Remote(url.hostname or "127.0.0.1", url.port or 8501, options.grpc_port)
        functions = [rates]
    until = time.monotonic() + BUDGET
    try:
        return [row for function in functions for row in measure(bench, function, until)]
    finally:
        bench.stop()


def main() -> None:
    options = arguments()
    with tempfile.TemporaryDirectory() as temporary:
        table = run(options, (options.folder or pathlib.Path(temporary)).resolve())
    packages = "fastapi", "grpcio", "uvicorn"
    versions = ", ".join(f"{package} {importlib.metadata.version(package)}" for package in packages)
    report.write(
        "serve",
        "`initx serve` under load and faults",
        f"python benchmarks/{pathlib.Path(__file__).name}{' --ray' * options.ray}",
        ["what", "measured", "bound", ""],
        table,
        f"The network has 64, 128 and 10 units; a request has one row; {versions}. Clients are "
        "closed loops in a separate process on the same cores, over the loopback. They check the "
        "values of every answer. The baseline is a FastAPI server that calls the signature inline. "
        "Rates and latencies are medians over 5 groups. In each group both servers are measured for "
        "3 s, one after the other. Brackets hold the range of the ratio over groups, and the median "
        "rates.",
        keep=not (options.quick or options.only or options.url) and options.server == OURS,
    )


if __name__ == "__main__":
    main()
