"""
`paraph-portal check`: whether a configuration, the portal's or the window's, could be served, without serving it; and what in
it is weaker than 128 bits of security, a warning each on standard error.
"""

import argparse
import ssl
import sys
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path

from cryptography import x509

from portal_adapter import app as portal
from portal_adapter import settings as portal_settings
from portal_adapter.auth.strength import RSA_BITS_MIN, fault_of_key
from portal_adapter.settings import Listener, SettingsError
from portal_adapter.window import app as window
from portal_adapter.window import settings as window_settings
from signer.client import Profile, ProfileError


def arguments(parser: argparse.ArgumentParser) -> None:
    del parser


def run(options: argparse.Namespace) -> int:
    origin, warnings = (_check_window if _is_window(options.config) else _check_portal)(options.config)
    for one in warnings:
        print(f"{options.config}: warning: {one}", file=sys.stderr)
    print(f"{options.config}: can be served as {origin}")
    return 0


def _is_window(path: Path) -> bool:
    """It accepts no certificates and sends no mail; a file that cannot be read is refused as the portal's."""
    try:
        table = tomllib.loads(path.read_text())
    except (OSError, ValueError):
        return False
    return not table.keys() & {"trust", "mail", "terms"} and "window" in table


def _check_window(path: Path) -> tuple[str, list[str]]:
    """Its origin, and warnings."""
    settings = window_settings.load(path)
    _check_files([settings.listener], settings.daemon.profile, lambda: window.services(settings))
    return settings.window.origin, _short_keys([settings.listener], settings.daemon.profile)


def _check_portal(path: Path) -> tuple[str, list[str]]:
    """Its origin, and warnings."""
    settings = portal_settings.load(path)
    listeners = [settings.listener, *([settings.cards] if settings.cards else [])]
    _check_files(listeners, settings.daemon.profile, lambda: portal.read_files(settings))
    warnings = _short_keys(listeners, settings.daemon.profile)
    if settings.trust.rsa_bits_min < RSA_BITS_MIN:
        warnings.append(
            f"trust.rsa_bits_min is {settings.trust.rsa_bits_min}: people log in and sign with RSA keys of less than "
            f"{RSA_BITS_MIN} bits, which is less than 128 bits of security; leave it out once none has one any more"
        )
    return settings.portal.origin, warnings


def _short_keys(listeners: Sequence[Listener], profile: Path) -> list[str]:
    """
    Of the certificates that we show others by TLS, in files that can be read: it is the operator who replaces them. Raises
    `SettingsError` for what is none.
    """
    shown = [one.certificate for one in listeners]
    if (client := Profile.load(profile).certificate) is not None:
        shown.append(client)
    faults = {file: _fault(file) for file in shown}
    return [f"{file} has {fault}: renew it with a longer key" for file, fault in faults.items() if fault]


def _fault(file: Path) -> str:
    try:
        return fault_of_key(x509.load_pem_x509_certificate(file.read_bytes()))
    except ValueError as error:
        raise SettingsError(None, [f"{file}: {error}"]) from None


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
