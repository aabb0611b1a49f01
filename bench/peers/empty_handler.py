"""
The least that a call can cost: grpc.aio on uvloop, mutual TLS, a handler that answers nothing.

    python -m bench.peers.empty_handler PORT CERTIFICATE KEY CLIENT-CA
"""

import asyncio
import sys
from pathlib import Path
from typing import Any

import grpc
import uvloop


async def nothing(_request: bytes, _context: Any) -> bytes:
    return b""


async def main() -> None:
    port, certificate, key, ca = sys.argv[1:]
    server = grpc.aio.server()
    handler: Any = grpc.unary_unary_rpc_method_handler(nothing)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bench.Empty", {"Call": handler}),))
    pair = (Path(key).read_bytes(), Path(certificate).read_bytes())
    credentials = grpc.ssl_server_credentials([pair], Path(ca).read_bytes(), require_client_auth=True)
    server.add_secure_port(f"127.0.0.1:{port}", credentials)
    await server.start()
    print("ready", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)  # until the bench is gone


if __name__ == "__main__":
    uvloop.run(main())
