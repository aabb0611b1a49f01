"""`paraph-portal window`: the window where codes are typed, as a process of its own."""

import argparse
import logging

import uvloop

from portal_adapter.cli.logs import write_logs
from portal_adapter.cli.stop import stopped
from portal_adapter.serving import Server
from portal_adapter.window.app import Services, app, services
from portal_adapter.window.settings import load

log = logging.getLogger("window")


def arguments(parser: argparse.ArgumentParser) -> None:
    del parser


def run(options: argparse.Namespace) -> int:
    write_logs()
    uvloop.run(_serve(services(load(options.config))))
    return 0


async def _serve(made: Services) -> None:
    over = stopped()
    settings = made.settings
    async with Server(app(made), settings.listener):
        log.info("serving %s on %s", settings.window.origin, settings.listener.address)
        await over.wait()
        log.info("stopping")
