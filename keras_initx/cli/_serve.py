"""`initx serve`: the local server over a folder of SavedModels."""

import argparse
import re
from typing import Any

from keras_initx.cli._sources import as_option

__all__ = ["add_serve"]


def add_serve(verbs: Any) -> None:
    """Adds the verb to the command.

    Args:
        verbs: What `ArgumentParser.add_subparsers` returned.
    """
    verb = verbs.add_parser("serve", help="SavedModels over TensorFlow Serving's REST and gRPC protocols")
    verb.set_defaults(verb=_serve, write=str, json=False)
    add = verb.add_argument
    add("root", nargs="?", help="the folder that `initx export` wrote to, such as saved_models")
    add("--config", help="instead: a TensorFlow Serving model config file")
    add("--batching", help="a TensorFlow Serving batching parameters file")
    add(
        "--host",
        default="127.0.0.1",
        help="address to listen on; beyond this machine, with a token (127.0.0.1)",
    )
    add("--rest-port", type=int, default=8501, help="port of the REST interface (8501)")
    add("--grpc-port", type=int, default=8500, help="port of the gRPC interface (8500)")
    add("--workers", type=int, default=1, help="processes, each with all models (1)")
    add("--token-file", help="a file with the secret that clients must send as a bearer token")
    add("--insecure", action="store_true", help="listen beyond this machine without a token")
    add("--tls-cert", help="a PEM certificate, for both ports")
    add("--tls-key", help="its key")
    add("--cors", action="store_true", help="let pages of other origins ask")
    add("--access-log", action="store_true", help="a line of JSON on stderr for each REST request")
    add("--poll-seconds", type=float, default=1.0, help="how often to look for new versions (1)")
    add("--timeout-seconds", type=float, default=30.0, help="how long a request may take (30)")
    add("--keep-alive-seconds", type=float, default=75.0, help="how long an idle connection stays open (75)")
    add("--max-body-bytes", type=int, default=32 * 2**20, help="the largest request (33554432)")
    add("--max-queue", type=int, help="requests that may wait for a model (1000)")
    add("--ray", action="store_true", help="in replicas of Ray Serve, the extra `ray`")
    add("--replicas", type=int, help="with --ray: how many, or at least (2)")
    add("--max-replicas", type=int, help="with --ray: how many at most, by load")
    add("--ray-address", help="with --ray: a running cluster, such as auto (one of its own)")


def _serve(options: argparse.Namespace) -> str:
    from keras_initx.serving import serve, serve_on_ray

    given = vars(options).copy()
    for name in ("verb", "write", "json", "broken", "interrupted"):
        del given[name]
    scale = {name: given.pop(name) for name in ("replicas", "max_replicas", "ray_address")}
    chosen = {name: value for name, value in scale.items() if value is not None}
    on_ray = given.pop("ray")
    if chosen and not on_ray:
        raise ValueError(f"{', '.join(map(as_option, chosen))} must come with `--ray`.")
    try:
        if on_ray:
            serve_on_ray(**given, **chosen)
        else:
            serve(**given)
    except ValueError as error:  # in the words of the command
        told = str(error).replace("`insecure=True`", "`--insecure`")
        names = [name for name in (*given, *scale) if name != "root"]
        told = re.sub(f"`({'|'.join(names)})`", lambda name: as_option(name[1]), told)
        raise ValueError(told) from error
    return "initx: stopped; what had been accepted was answered"
