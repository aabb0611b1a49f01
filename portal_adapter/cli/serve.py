"""`paraph-portal serve`: the portal, and beside it the cards' origin or the front's socket."""

import argparse
import logging
from contextlib import AsyncExitStack

import uvloop

from portal_adapter.app import Services, app, cards_app, services
from portal_adapter.cli.logs import write_logs
from portal_adapter.cli.stop import stopped
from portal_adapter.handing_over import HandingOver
from portal_adapter.mail.delivery import Delivery
from portal_adapter.rescan import Rescan
from portal_adapter.serving import BehindFront, Server
from portal_adapter.settings import load
from portal_adapter.unsaved import Unsaved
from portal_adapter.upkeep import Upkeep

log = logging.getLogger("portal")


def arguments(parser: argparse.ArgumentParser) -> None:
    del parser


def run(options: argparse.Namespace) -> int:
    write_logs()
    made = services(load(options.config))
    try:
        uvloop.run(_serve(made))
    finally:
        made.close()
    return 0


async def _serve(made: Services) -> None:
    over = stopped()
    settings = made.settings
    made.printer.start()
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(Delivery(made.engine, made.clock, settings.mail, settings.portal))
        await stack.enter_async_context(Upkeep(made.engine, made.clock, made.blobs, settings.limits))
        await stack.enter_async_context(Rescan(made.engine, made.blobs, settings.scan, made.clock))
        if settings.back_end is not None:
            await stack.enter_async_context(HandingOver(made.engine, made.clock, made.blobs, settings.back_end))
        await stack.enter_async_context(Unsaved(made.engine, made.clock, made.daemon, settings.limits))
        await stack.enter_async_context(Server(app(made), settings.listener))
        if settings.cards is not None:
            await stack.enter_async_context(Server(cards_app(made), settings.cards, client_ca=settings.cards.client_ca))
        if settings.front is not None:
            await stack.enter_async_context(BehindFront(cards_app(made), settings.front))
        log.info("serving %s on %s", settings.portal.origin, settings.listener.address)
        await over.wait()
        log.info("stopping")
