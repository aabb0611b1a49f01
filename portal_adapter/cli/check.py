"""`paraph-portal check`: whether the configuration could be served, without serving it."""

import argparse
import ssl

from portal_adapter.app import services
from portal_adapter.settings import SettingsError, load


def arguments(parser: argparse.ArgumentParser) -> None:
    del parser


def run(options: argparse.Namespace) -> int:
    settings = load(options.config)
    made = services(settings)
    made.close()
    for listener in (settings.listener, settings.cards):
        if listener is None:
            continue
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(listener.certificate, listener.key)
        except (OSError, ssl.SSLError) as error:
            raise SettingsError(options.config, [f"{listener.certificate}, {listener.key}: {error}"]) from None
    print(f"{options.config}: can be served as {settings.portal.origin}")
    return 0
