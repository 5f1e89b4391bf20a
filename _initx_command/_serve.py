"""`initx serve`: the local server over a folder of SavedModels."""

import argparse
import re

from _initx_command._loading import load
from _initx_command._signatures import defaults_of
from _initx_command._sources import as_option
from _initx_command._verb import Answer, Options, Verb

__all__ = ["SERVE"]

_RAY = "keras_initx.serving.serve_on_ray"
_SCALE = ("replicas", "max_replicas", "ray_address")  # arguments of `serve_on_ray` alone


def _add_serve(options: Options) -> None:
    options.add(
        "root",
        nargs="?",
        metavar="FOLDER",
        help="a folder that `initx export` wrote to, such as saved_models",
    )
    options.add(
        "--config", metavar="FILE", help="a TensorFlow Serving model config file, instead of the folder"
    )
    options.add("--batching", metavar="FILE", help="a TensorFlow Serving batching parameters file")
    options.add("--host", help="address to listen on; an address beyond this machine needs a token")
    options.add("--rest-port", type=int, metavar="N", help="port of the REST interface")
    options.add("--grpc-port", type=int, metavar="N", help="port of the gRPC interface")
    options.add("--workers", type=int, metavar="N", help="number of processes; each process holds all models")
    options.add(
        "--max-queue", type=int, metavar="N", help="requests that may wait for a model; by default 1000"
    )
    options.add("--max-body-bytes", type=int, metavar="N", help="size of the largest request")
    _add_security(options)
    _add_seconds(options)
    _add_ray(options)


def _add_security(options: Options) -> None:
    options.add(
        "--token-file", metavar="FILE", help="a file with the secret that clients send as a bearer token"
    )
    options.add("--insecure", action="store_true", help="listen beyond this machine without a token")
    options.add("--tls-cert", metavar="FILE", help="a PEM certificate, for both ports")
    options.add("--tls-key", metavar="FILE", help="the key of the certificate")
    options.add("--cors", action="store_true", help="let web pages of other origins send requests")
    options.add(
        "--access-log", action="store_true", help="write a line of JSON to stderr for each REST request"
    )


def _add_seconds(options: Options) -> None:
    options.add("--poll-seconds", type=float, metavar="S", help="seconds between two looks for new versions")
    options.add("--timeout-seconds", type=float, metavar="S", help="seconds that a request may take")
    options.add(
        "--keep-alive-seconds", type=float, metavar="S", help="seconds that an idle connection stays open"
    )


def _add_ray(options: Options) -> None:
    options.add("--ray", action="store_true", help="serve in replicas of Ray Serve; needs the extra `ray`")
    options.add(
        "--replicas",
        function=_RAY,
        type=int,
        metavar="N",
        help="with --ray: number of replicas, or the least number with --max-replicas",
    )
    options.add(
        "--max-replicas",
        function=_RAY,
        type=int,
        metavar="N",
        help="with --ray: the largest number of replicas, if the number follows the load",
    )
    options.add(
        "--ray-address",
        function=_RAY,
        help="with --ray: a running cluster, such as auto; by default a cluster on this machine",
    )


def _serve(options: argparse.Namespace) -> Answer:
    scale = {name: getattr(options, name) for name in _SCALE}
    chosen = [name for name, value in scale.items() if value != defaults_of(_RAY).get(name)]
    if chosen and not options.ray:
        raise ValueError(f"{', '.join(map(as_option, chosen))} must come with `--ray`.")
    others = {"run", "json", "ray", *_SCALE}
    given = {name: value for name, value in vars(options).items() if name not in others and value is not None}
    load()
    from keras_initx.serving import serve, serve_on_ray

    try:
        if options.ray:
            serve_on_ray(**given, **scale)
        else:
            serve(**given)
    except ValueError as error:  # names arguments; the user of the command knows options
        told = str(error).replace("`insecure=True`", "`--insecure`")
        names = [name for name in vars(options) if name != "root"]
        told = re.sub(f"`({'|'.join(names)})`", lambda name: as_option(name[1]), told)
        raise ValueError(told) from error
    return Answer("initx: stopped; all accepted requests were answered")


SERVE = Verb(
    "serve",
    "serve SavedModels by TensorFlow Serving's REST and gRPC protocols",
    _add_serve,
    _serve,
    "keras_initx.serve",
)
