"""
The server that one would write in a day: grpcio with a thread pool, python-pkcs11, one session, a lock, one digest a
call. Mutual TLS, and nothing else: no verification, no limits, no queue.

    python -m bench.peers.plain_server PORT CERTIFICATE KEY CLIENT-CA MODULE TOKEN-LABEL PIN-FILE {KIND=KEY-LABEL}...
"""

import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pkcs11
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from pkcs11 import Mechanism, ObjectClass

DIGEST_INFO = bytes.fromhex("3031300d060960864801650304020105000420")  # RFC 8017, 9.2, note 1


def method(lock: threading.Lock, session: Any, kind: str, label: str) -> Callable[[bytes, Any], bytes]:
    key = session.get_key(object_class=ObjectClass.PRIVATE_KEY, label=label)

    def rsa(digest: bytes, _context: Any) -> bytes:
        with lock:
            return bytes(key.sign(DIGEST_INFO + digest, mechanism=Mechanism.RSA_PKCS))

    def ecdsa(digest: bytes, _context: Any) -> bytes:
        with lock:
            raw = bytes(key.sign(digest, mechanism=Mechanism.ECDSA))
        half = len(raw) // 2
        return encode_dss_signature(int.from_bytes(raw[:half]), int.from_bytes(raw[half:]))

    return rsa if kind.startswith("RSA") else ecdsa


def main() -> None:
    port, certificate, key, ca, module, label, pin_file, *keys = sys.argv[1:]
    session = pkcs11.lib(module).get_token(token_label=label).open(user_pin=Path(pin_file).read_text().strip())
    lock = threading.Lock()
    handlers: dict[str, Any] = {}
    for kind, _, key_label in (text.partition("=") for text in keys):
        handlers[kind] = grpc.unary_unary_rpc_method_handler(method(lock, session, kind, key_label))
    server = grpc.server(ThreadPoolExecutor(max_workers=8))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bench.Plain", handlers),))
    pair = (Path(key).read_bytes(), Path(certificate).read_bytes())
    credentials = grpc.ssl_server_credentials([pair], Path(ca).read_bytes(), require_client_auth=True)
    server.add_secure_port(f"127.0.0.1:{port}", credentials)
    server.start()
    print("ready", flush=True)
    sys.stdin.read()  # until the bench is gone
    server.stop(None)


if __name__ == "__main__":
    main()
