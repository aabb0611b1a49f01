"""paraph demo."""

import argparse

HELP = "demo"
EXAMPLE = "paraph demo"


def arguments(parser: argparse.ArgumentParser) -> None: ...
def run(options: argparse.Namespace) -> int:
    return 1
