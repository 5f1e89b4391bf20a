"""The least cost of gRPC in Python: a grpc.aio server that returns each request.

`python benchmarks/serve_echo.py PORT`
"""

import asyncio
import sys

import grpc


async def echo(request: bytes, _: grpc.aio.ServicerContext) -> bytes:
    return request


class Handler(grpc.GenericRpcHandler):
    """Accepts every method, and takes messages as bytes."""

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:  # noqa: ARG002
        return grpc.unary_unary_rpc_method_handler(echo)


async def main(port: int) -> None:
    server = grpc.aio.server(handlers=[Handler()])
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
