"""
`openssl cms -sign`: a process for each document, so many side by side, the key in a *file* and not on a token.

    python -m bench.peers.openssl_cms CERTIFICATE.pem ISSUER.pem KEY.pem PROCESSES

Then one JSON order a line, {"file": ..., "seconds": 1.0}; answers {"count": ..., "seconds": ...}.
"""

import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor


def sign_until(command: list[str], end: float) -> int:
    count = 0
    while time.monotonic() < end:
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        count += 1
    return count


def main() -> None:
    certificate, issuer, key, processes = sys.argv[1:]
    print("ready", flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        words = ["-sign", "-binary", "-cades", "-md", "sha256", "-outform", "DER", "-in", order["file"]]
        command = ["openssl", "cms", *words, "-signer", certificate, "-inkey", key, "-certfile", issuer]
        began = time.monotonic()
        with ThreadPoolExecutor(int(processes)) as pool:
            counts = pool.map(lambda _: sign_until(command, began + order["seconds"]), range(int(processes)))  # noqa: B023
        print(json.dumps({"count": sum(counts), "seconds": time.monotonic() - began}), flush=True)


if __name__ == "__main__":
    main()
