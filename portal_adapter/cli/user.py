"""`paraph-portal user`: who has an account, what belongs to it, a product for who has lost hers, and the end of sessions."""

import argparse
import json
import sys
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from portal_adapter.app import read_files
from portal_adapter.auth import certificate as certificates
from portal_adapter.auth import session as sessions
from portal_adapter.auth.number import Numbers
from portal_adapter.cli.operator import changing, note, opened, when
from portal_adapter.clock import Clock
from portal_adapter.domain import account, login
from portal_adapter.settings import load
from portal_adapter.store.database import reading, writing


def arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    texts = {
        "list": "everybody, by name",
        "show": "one person with products and spaces",
        "end-sessions": "log a person out everywhere, at once",
    }
    for name, text in texts.items():
        one = actions.add_parser(name, help=text)
        if name != "list":
            one.add_argument("id", metavar="ID", help="as `list` shows it")
        one.add_argument("--json", action="store_true", help="print as JSON")
    one = actions.add_parser(
        "add-product", help="register a product for a person who has lost her others: know her first"
    )
    one.add_argument("id", metavar="ID", help="as `list` shows it")
    which = one.add_mutually_exclusive_group(required=True)
    which.add_argument("--smartcard", metavar="FILE", type=Path, help="its authentication certificate, PEM or DER")
    which.add_argument("--stick", metavar="FILE", type=Path, help="its authentication certificate, PEM or DER")
    which.add_argument("--number", help="of a Signing Server product: the daemon has the certificate")
    one.add_argument("--json", action="store_true", help="print as JSON")


def run(options: argparse.Namespace) -> int:
    done = {"list": _list, "show": _show, "end-sessions": _end, "add-product": _add}[options.action]
    return done(options)


def _list(options: argparse.Namespace) -> int:
    with opened(options) as engine, reading(engine) as connection:
        found = account.listed(connection)
    if options.json:
        print(json.dumps(found, ensure_ascii=False, indent=2))
        return 0
    for one in found:
        print(f"{one['id']}  {one['family']}, {one['given']}  {one['email']}  since {when(one['created'])}")
    return 0


def _show(options: argparse.Namespace) -> int:
    with opened(options) as engine, reading(engine) as connection:
        found = account.shown(connection, Clock().now(), options.id, load(options.config).limits)
    if found is None:
        return _nobody(options)
    if options.json:
        print(json.dumps(found, ensure_ascii=False, indent=2))
        return 0
    print(f"{found['given']} {found['family']}, {found['email']}, mails in {found['language']}")
    print(f"since {when(found['created'])}, open sessions: {found['sessions']}")
    for one in found["products"]:
        print(f"product  {one['kind']:9}  {one['number'] or '-'}  {one['fingerprint']}  since {when(one['added'])}")
    for one in found["spaces"]:
        print(f"space    {one['identifier']}  {one['role']}  {one['title']}")
    return 0


def _end(options: argparse.Namespace) -> int:
    now = Clock().now()
    with opened(options) as engine, writing(engine) as connection:
        found = account.shown(connection, now, options.id, load(options.config).limits)
        if found is None:
            return _nobody(options)
        sessions.end_all(connection, now, options.id)
        note(connection, now, "sessions-ended", account=options.id, sessions=found["sessions"])
    ended = found["sessions"]
    print(json.dumps({"id": options.id, "ended": ended}) if options.json else f"{options.id}: {ended} sessions ended")
    return 0


def _add(options: argparse.Namespace) -> int:
    """The certificate is looked at as at a login; what is not accepted there is refused here."""
    settings, now = load(options.config), Clock().now()
    file, number = options.smartcard or options.stick, options.number or ""
    kind = "server" if number else "smartcard" if options.smartcard else "stick"
    try:
        der = _der(file) if file is not None else Numbers(settings.daemon.profile).certificate_of(number)
    except (OSError, ValueError) as error:
        print(f"paraph-portal: {file}: {error}", file=sys.stderr)
        return 1
    if der is None:
        print(f"paraph-portal: {number}: the daemon knows no such product", file=sys.stderr)
        return 1
    with opened(options) as engine, changing(engine, "product-added", id=options.id) as connection:
        if account.shown(connection, now, options.id, settings.limits) is None:
            return _nobody(options)
        issuers = read_files(settings).issuers
        found = issuers.accept(der, now)
        certificates.check_for_login(found)
        login.bind_product(connection, now, options.id, kind, found, number)
        note(connection, now, "product-added", account=options.id, fingerprint=found.fingerprint)
    told = {
        "id": options.id,
        "kind": kind,
        "fingerprint": found.fingerprint,
        "serial": found.serial,
        "issuer": found.issuer,
    }
    if options.json:
        print(json.dumps(told, ensure_ascii=False, indent=2))
    else:
        print(f"{options.id}: {kind} of {found.issuer}, serial {found.serial}, {found.fingerprint} is registered")
    return 0


def _der(file: Path) -> bytes:
    """Raises ValueError."""
    content = file.read_bytes()
    if content.lstrip().startswith(b"-----BEGIN"):
        return x509.load_pem_x509_certificate(content).public_bytes(Encoding.DER)
    return content


def _nobody(options: argparse.Namespace) -> int:
    print(f"paraph-portal: {options.id}: there is no such account", file=sys.stderr)
    return 1
