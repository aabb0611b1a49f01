"""
The whole portal on one machine: a daemon with software tokens, the portal, the window where codes are typed, and three
people who are enrolled and registered: one with a business, one in its team, and one who works for an administration.

    make demo-portal

Everything in it was made by the commands and pages that anybody has; state is kept under var/portal, so that the next
start takes seconds. Messages with one-time codes are caught here, and printed once all is there. Ctrl-C ends all of it.
"""

import asyncio
import contextlib
import html
import http.cookiejar
import http.server
import json
import os
import re
import secrets
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from signer.cli.demo_daemon import running
from signer.cli.demo_setting import lock
from signer.cli.demo_steps import REPOSITORY, DemoFailed, Steps, script

SECRET_CODE = "kiln and clay 4"  # of all; whoever tries the demo types it
ADMINISTRATION = "millbrook-town-hall"  # that Cleo works for
WAIT_S = 30.0  # for a process to listen, a message to come
OUTPUTS = ("--output", "PADES_B_B", "--output", "CADES_B_B")


@dataclass(frozen=True)
class Person:
    name: str
    key: str = ""  # her signature key's label, as deploy/demo/tokens.py makes it; empty for who signs nothing

    @property
    def number(self) -> str:
        return f"{self.name}-login"

    @property
    def credentials(self) -> dict[str, tuple[str, ...]]:
        """Label -> what it makes beside a login."""
        return {self.number: (), **({self.key: OUTPUTS} if self.key else {})}


ANA, BO, CLEO = Person("ana", "ana-p-256"), Person("bo", "bo-p-384"), Person("cleo")
PEOPLE = (ANA, BO, CLEO)


class Catcher:
    """Where the daemon's messages to people arrive: each is kept in `file`, and printed while `prints`."""

    def __init__(self, port: int, file: Path) -> None:
        self.prints = False
        self._messages: list[dict[str, str]] = []
        self._news = threading.Condition()
        catcher = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                lines = [line for line in message["text"].splitlines() if line]  # all: a code's names what it is for
                said = f"to {self.path[1:]}: " + "\n    ".join(lines)
                with catcher._news, file.open("a") as out:
                    print(said, file=out)
                    catcher._messages.append({**message, "to": self.path[1:]})
                    catcher._news.notify_all()
                if catcher.prints:
                    print(f"  message {said}", flush=True)
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def count(self) -> int:
        return len(self._messages)

    def code(self, person: Person, template: str, after: int) -> str:
        """The code of the first such message to her behind the first `after`."""

        def found() -> dict[str, str] | None:
            mine = (m for m in self._messages[after:] if (m["to"], m["template"]) == (person.name, template))
            return next(mine, None)

        with self._news:
            if not self._news.wait_for(lambda: found() is not None, WAIT_S):
                raise DemoFailed(f"no message {template} to {person.name}")
            message = found()
        assert message is not None
        return message["text"].splitlines()[0].partition(":")[2].strip()


class Visitor:
    """A browser without a window: it shows a page, fills in its forms, and follows redirects."""

    def __init__(self, ca: Path) -> None:
        tls = urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=str(ca)))
        self._opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar()), tls)
        self._opener.addheaders = [("accept-language", "en")]
        self.address = self.page = ""

    def show(self, address: str) -> None:
        self._answered(urllib.request.Request(urllib.parse.urljoin(self.address, address)))

    def send(self, action: str, fields: Mapping[str, str] | None = None) -> None:
        """The form of the page that leads to an address which ends so."""
        for found in re.finditer(r"<form([^>]*)>(.*?)</form>", self.page, re.DOTALL):
            named = re.search(r' action="([^"]*)"', found[1])
            where = html.unescape(named[1]) if named else self.address
            hidden = dict(re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', found[2]))
            if where.endswith(action) and set(fields or {}) <= set(re.findall(r'name="([^"]+)"', found[2])):
                data = {name: html.unescape(value) for name, value in hidden.items()} | dict(fields or {})
                address = urllib.parse.urljoin(self.address, where)
                self._answered(urllib.request.Request(address, urllib.parse.urlencode(data).encode()))
                return
        raise DemoFailed(f"{self.address} has no form {action} with {', '.join(fields or {})}")

    def _answered(self, request: urllib.request.Request) -> None:
        try:
            with self._opener.open(request, timeout=WAIT_S) as answer:
                self.address, self.page = answer.url, answer.read().decode()
        except urllib.error.HTTPError as error:
            said = re.sub(r"<[^>]+>|\s+", " ", error.read().decode())[:600]
            raise DemoFailed(f"{request.full_url}: {error.code} {said}") from None


class Town:
    """What the demo consists of, in one directory; `ports` stay the same over starts."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        file = directory / "ports.json"
        if not file.exists():
            names = ("daemon", "metrics", "portal", "window", "catcher")
            file.write_text(json.dumps(dict(zip(names, _free_ports(len(names)), strict=True))))
        self.ports: dict[str, int] = json.loads(file.read_text())
        self.portal = f"https://localhost:{self.ports['portal']}"
        self.window = f"https://127.0.0.1:{self.ports['window']}"
        self.ca = directory / "pki" / "root.pem"

    def paraph(self, *words: str | Path) -> None:
        """One of the daemon's commands."""
        self._command("paraph", "signer", *words)

    def paraph_portal(self, command: str, *words: str) -> str:
        """One of the portal's; what it prints."""
        return self._command(
            "paraph-portal", "portal_adapter", command, "--config", self.directory / "portal.toml", *words
        )

    def _command(self, name: str, module: str, *words: str | Path) -> str:
        done = subprocess.run(
            [sys.executable, "-m", module, *words], cwd=REPOSITORY, check=False, text=True, capture_output=True
        )
        if done.returncode:
            raise DemoFailed(f"{name} {' '.join(map(str, words[:3]))}: {(done.stderr or done.stdout).strip()}")
        return done.stdout

    @property
    def agent_command(self) -> str:
        """What gives a person the desk of an administration."""
        config = self.directory / "portal.toml"
        return f".venv/bin/paraph-portal agent --config {config} add ACCOUNT ADMINISTRATION"

    # ---- once

    def forget(self) -> None:
        """What a start that was interrupted has left."""
        for path in self.directory.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name not in {"demo.lock", "ports.json"}:
                path.unlink()

    async def prepare(self, steps: Steps) -> None:
        with steps("tokens and keys", 10) as advance:
            keys = await script("tokens.py", self.directory, advance=advance)
        with steps("certificates") as advance:
            await script("pki.py", self.directory / "pki", text=keys, advance=advance)
        with steps("configuration"):
            self._write(json.loads(keys)["module"])
        with steps("credentials", sum(len(person.credentials) for person in PEOPLE)) as advance:
            config = self.directory / "paraph.toml"
            for person in PEOPLE:
                for label, outputs in person.credentials.items():
                    advance(label)
                    self.paraph(
                        "credential", "--config", config, "add", label, "--key-label", label, *outputs, "--certificate",
                        self.directory / "pki" / "credentials" / f"{label}.pem", "--gate", "code+sent-otp", "--subject", person.name,
                    )  # fmt: skip

    def _write(self, module: str) -> None:
        """The three configurations, and the keys and texts that they name."""
        directory, ports = self.directory, self.ports
        for name in ("state", "anchor"):
            (directory / name).mkdir()
        (directory / "anchor" / "checkpoints").touch()
        self.paraph("audit", "keys", directory / "ledger")
        for key in ("seeds.key", "web.key"):
            (directory / key).write_bytes(secrets.token_bytes(32))
            (directory / key).chmod(0o400)
        tokens = "".join(
            f'[[token]]\nname = "{name}"\nkind = "{kind}"\nlabel = "{label}"\nmodule = "{module}"\n'
            f'pin_file = "{directory}/pins/{name}.pin"\n'
            f'environment = {{ SOFTHSM2_CONF = "{directory}/softhsm/softhsm2.conf" }}\n'
            for name, kind, label in (
                ("card", "smartcard", "Paraph demo Smartcard"),
                ("stick", "signing-stick", "Paraph demo Stick"),
                ("server", "signing-server", "Paraph demo Server"),
            )
        )
        names = json.dumps([name for person in PEOPLE for name in person.credentials])
        callers = "".join(
            f'[[caller]]\nname = "{name}"\nuri = "urn:paraph:caller:{name}"\nrole = "{role}"\nrpcs = {json.dumps(rpcs)}\n'
            + (f"credentials = {names}\n" if role != "operator" else "")
            for name, role, rpcs in CALLERS
        )
        (directory / "paraph.toml").write_text(f"""
[server]
state = "{directory}/state"
metrics = "127.0.0.1:{ports["metrics"]}"
[[listener]]
address = "127.0.0.1:{ports["daemon"]}"
certificate = "{directory}/pki/server.pem"
key = "{directory}/pki/server.key"
client_ca = "{self.ca}"
{tokens}
{callers}
[people]
seed_key_file = "{directory}/seeds.key"
tell = "whoever runs this demo"
enrol_at = "{self.window}/enrol"
[trust]
roots = ["{self.ca}"]
[ledger]
checkpoint_key = "{directory}/ledger/checkpoint.key"
data_key_file = "{directory}/ledger/data.key"
[[ledger.anchor]]
file = "{directory}/anchor/checkpoints"
""")
        for name, caller in (("portal", "portal"), ("window", "window"), ("operator", "operator")):
            (directory / f"{name}-client.toml").write_text(
                f'server = "127.0.0.1:{ports["daemon"]}"\nca = "pki/root.pem"\n'
                f'certificate = "pki/{caller}.pem"\nkey = "pki/{caller}.key"\n'
            )
        for language, text in (
            ("en", "This is a demo: nothing here binds anybody."),
            ("fr", "Ceci est une démonstration."),
        ):
            (directory / f"terms-{language}.txt").write_text(text)
        tls = 'certificate = "pki/server.pem"\nkey = "pki/server.key"'
        (directory / "portal.toml").write_text(f"""
[portal]
name = "Millbrook"
origin = "{self.portal}"
state = "portal-state"
key_file = "web.key"
[listener]
address = "127.0.0.1:{ports["portal"]}"
{tls}
[window]
origin = "{self.window}"
caller = "window"
[daemon]
profile = "portal-client.toml"
[trust]
issuers = ["pki/issuing.pem"]
[mail]
sender = "portal@millbrook.example"
directory = "mail"
[terms]
version = "demo"
en = "terms-en.txt"
fr = "terms-fr.txt"
""")
        (directory / "window.toml").write_text(f"""
[window]
origin = "{self.window}"
[listener]
address = "127.0.0.1:{ports["window"]}"
{tls}
[portal]
name = "Millbrook"
origin = "{self.portal}"
[daemon]
profile = "window-client.toml"
[limits]
tries_a_minute = 60
codes_in_10_minutes = 20
""")

    def settle(self, catcher: Catcher) -> None:
        """People come, as anybody comes: enrolled by an operator, then by their own hands on the pages."""
        ana, bo, _ = (self._arrives(person, catcher) for person in PEOPLE)
        ana.show(f"{self.portal}/spaces/new/private")
        ana.send("/spaces/new/private", {"email": "ana@millbrook.example"})
        ana.show(f"{self.portal}/spaces/new/business")
        business = {
            "kind": "legal_person",
            "title": "Kiln and Clay",
            "company": "Kiln and Clay Ltd",
            "email": "office@kiln.example",
        }
        ana.send("/spaces/new/business", business)
        space = ana.address
        ana.show(f"{space}/team/invite")
        invited = {"given": "Bo", "family": "Marchetti", "email": "bo@millbrook.example", "role": "signatory"}
        ana.send("/team/invite", {**invited, "language": "en"})
        bo.show(self._invitation())
        bo.send("/accept")
        accounts = json.loads(self.paraph_portal("user", "list", "--json"))
        [cleo] = [one["id"] for one in accounts if one["email"].startswith(CLEO.name)]
        self.paraph_portal("agent", "add", cleo, ADMINISTRATION)

    def _arrives(self, person: Person, catcher: Catcher) -> Visitor:
        after = catcher.count()
        url = f"http://127.0.0.1:{self.ports['catcher']}/{person.name}"
        profile = self.directory / "operator-client.toml"
        self.paraph("subject", "enrol", person.name, "--webhook", url, "--factor", "sent", "--profile", profile)
        visitor = Visitor(self.ca)
        visitor.show(f"{self.window}/enrol")
        enrolment = catcher.code(person, "enrolment-code", after)
        after = catcher.count()
        visitor.send("", {"enrolment": enrolment})
        codes = {"secret_code": SECRET_CODE, "again": SECRET_CODE}
        visitor.send("", {**codes, "otp": catcher.code(person, "confirm-code", after)})
        visitor.show(f"{self.portal}/login")
        visitor.send("/login/server", {"number": person.number})
        after = catcher.count()
        visitor.send("", {"do": "send"})
        visitor.send("", {"secret_code": SECRET_CODE, "otp": catcher.code(person, "login-code", after)})
        visitor.send("/login/statement")
        visitor.send("/register", {"email": f"{person.name}@millbrook.example"})
        visitor.send("/terms", {"accepted": "yes"})
        return visitor

    def _invitation(self) -> str:
        """The link in the mail."""
        for _ in range(int(WAIT_S / 0.2)):
            for file in (self.directory / "mail").glob("*"):
                found = re.search(rf"{self.portal}/invitations/[\w-]+", file.read_text().replace("=\n", ""))
                if found:
                    return found[0]
            threading.Event().wait(0.2)
        raise DemoFailed(f"no invitation in {self.directory / 'mail'}")

    # ---- always

    @contextlib.asynccontextmanager
    async def serving(self, command: str, port: int) -> AsyncIterator[None]:
        """`paraph-portal serve` or `window`, until the block ends."""
        name = {"serve": "portal", "window": "window"}[command]
        with (self.directory / f"{name}.log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "portal_adapter", command, "--config", self.directory / f"{name}.toml",
                stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log, cwd=REPOSITORY, start_new_session=True,
            )  # fmt: skip
        try:
            async with asyncio.timeout(WAIT_S):
                while True:
                    if process.returncode is not None:
                        raise DemoFailed(f"{name}: {(self.directory / f'{name}.log').read_text()[-1000:]}")
                    with contextlib.suppress(OSError):
                        _, writer = await asyncio.open_connection("127.0.0.1", port)
                        writer.close()
                        break
                    await asyncio.sleep(0.05)
            yield
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            await process.wait()


CALLERS = (
    (
        "portal",
        "submit",
        ["CancelBatch", "GetBatch", "GetCredential", "ListCredentials", "OpenBatch", "VerifyDocument"],
    ),
    (
        "window",
        "consent",
        [
            *("Authenticate", "Authorize", "CancelBatch", "ChangeCode", "CompleteEnrolment", "GetBatch", "GetCredential"),
            *("ListCredentials", "RequestOtp", "SignBatch"),
        ],
    ),
    (
        "operator",
        "operator",
        ["EnrolSubject", "GetServerInfo", "ListSubjects", "ListTokens", "SuspendSubject", "UnlockSubject", "WatchTokens"],
    ),
)  # fmt: skip


async def run(directory: Path) -> None:
    over = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, over.set)
    with contextlib.ExitStack() as stack:
        lock(stack, directory / "demo.lock", "another demo is at work")
        town = Town(directory)
        settled = directory / "settled"
        with Steps() as steps:
            if not settled.exists():
                town.forget()
                await town.prepare(steps)
        catcher = Catcher(town.ports["catcher"], directory / "messages")
        async with (
            running(Steps(), directory),
            town.serving("window", town.ports["window"]),
            town.serving("serve", town.ports["portal"]),
        ):
            if not settled.exists():
                with Steps() as steps, steps("people and their spaces"):
                    await asyncio.to_thread(town.settle, catcher)  # whose codes are used up with it
                settled.touch()
            catcher.prints = True
            tell(town)
            await over.wait()


def tell(town: Town) -> None:
    print(
        f"""
  the portal     {town.portal}   your browser does not know its CA: take {town.ca} in, or go on despite its warning
  the window     {town.window}   where codes are typed; the portal leads there, and its warning comes once, too

  person           product number   secret code       has
  Ana Lindqvist    {ANA.number:16} {SECRET_CODE:17} a private space; the business Kiln and Clay, its administrator
  Bo Marchetti     {BO.number:16} {SECRET_CODE:17} a signatory in the team of Kiln and Clay
  Cleo Okonjo      {CLEO.number:16} {SECRET_CODE:17} the desk of Millbrook Town Hall, where changes of address are sent

  another agent: {town.agent_command}
                 (accounts: .venv/bin/paraph-portal user --config {town.directory / "portal.toml"} list)

  one-time codes appear here and in {town.directory / "messages"}; the portal's mails in {town.directory / "mail"}
  Ctrl-C ends all of it; `rm -r {town.directory}` forgets it
""",
        flush=True,
    )


def _free_ports(count: int) -> Iterator[int]:
    """All different: they are taken at the same time."""
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            probe = stack.enter_context(socket.socket())
            probe.bind(("127.0.0.1", 0))
            yield int(probe.getsockname()[1])


def main() -> int:
    directory = Path(sys.argv[1] if len(sys.argv) > 1 else REPOSITORY / "var" / "portal").absolute()
    os.umask(0o077)
    directory.mkdir(parents=True, exist_ok=True)
    try:
        asyncio.run(run(directory))
    except DemoFailed as error:
        print(f"demo-portal: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
