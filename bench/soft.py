"""The question of `digests`, RSA and verification on, asked of opencryptoki's soft token; `digests` runs it as a process."""

import argparse
import json
import signal
import sys
from dataclasses import asdict
from pathlib import Path

from bench.digests import BATCHES, QUICK, cases
from bench.rig.bed import Bed
from bench.rig.daemon import Service
from bench.rig.opencryptoki import soft_token


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.soft")
    parser.add_argument("file", type=Path)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(130))
    rounds, seconds = (5, 0.4) if options.quick else (7, 1.2)
    with Bed() as bed, soft_token(bed.directory) as token:
        daemon = bed.daemon(Service(token, bed.lanes))
        batches = QUICK if options.quick else BATCHES
        rows = cases(bed.client(daemon), bed.raw(token), token, "RSA-2048", rounds, seconds, batches)
        bed.close()  # before the token's own daemon
    options.file.write_text(json.dumps([asdict(row) for row in rows]))


if __name__ == "__main__":
    main()
