"""`paraph-portal check`: whether a configuration, the portal's or the window's, could be served, without serving it."""

import argparse
import ssl
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path

from portal_adapter import app as portal
from portal_adapter import settings as portal_settings
from portal_adapter.settings import Listener, SettingsError
from portal_adapter.window import app as window
from portal_adapter.window import settings as window_settings
from signer.client import Profile, ProfileError


def arguments(parser: argparse.ArgumentParser) -> None:
    del parser


def run(options: argparse.Namespace) -> int:
    origin = (_check_window if _is_window(options.config) else _check_portal)(options.config)
    print(f"{options.config}: can be served as {origin}")
    return 0


def _is_window(path: Path) -> bool:
    """It accepts no certificates and sends no mail; a file that cannot be read is refused as the portal's."""
    try:
        table = tomllib.loads(path.read_text())
    except (OSError, ValueError):
        return False
    return not table.keys() & {"trust", "mail", "terms"} and "window" in table


def _check_window(path: Path) -> str:
    settings = window_settings.load(path)
    _check_files([settings.listener], settings.daemon.profile, lambda: window.services(settings))
    return settings.window.origin


def _check_portal(path: Path) -> str:
    settings = portal_settings.load(path)
    listeners = [settings.listener, *([settings.cards] if settings.cards else [])]
    _check_files(listeners, settings.daemon.profile, lambda: portal.read_files(settings))
    return settings.portal.origin


def _check_files(listeners: Sequence[Listener], profile: Path, read: Callable[[], object]) -> None:
    """Raises `SettingsError` with every file that cannot be used; `read` raises it with those that it looks at."""
    mistakes = []
    for listener in listeners:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(listener.certificate, listener.key)
        except (OSError, ssl.SSLError) as error:
            mistakes.append(f"{listener.certificate}, {listener.key}: {error}")
    try:
        found = Profile.load(profile)
        for file in (found.ca, found.certificate, found.key):
            if file is not None:
                file.read_bytes()
    except (ProfileError, OSError) as error:
        mistakes.append(str(error))
    try:
        read()
    except SettingsError as error:
        mistakes += error.mistakes
    if mistakes:
        raise SettingsError(None, sorted(set(mistakes)))
