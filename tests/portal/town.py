"""
Two tenants of one portal who have one of everything, and what a test of every route needs: the ids that stand in paths, a
picture of the database, and requests as they stand on the wire.

    town = Town(place)
    town.paths(route)          the route's paths with Ada's own ids
    town.foreign               every id in the database that is none of Ada's
"""

import asyncio
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import unquote

from sqlalchemy import Engine, insert, select, text, update

from portal_adapter.domain.ids import new_id
from portal_adapter.store import schema
from portal_adapter.web.route import Route
from portal_adapter.web.topics import topics
from tests.hostile import png_image
from tests.portal.place import Place, Visitor

# The settings of a place whose pages of attachments are to be seen: its procedures are not signed.
ATTACHES = "[attachments]\nbefore_signature = true\n"
MARKER = "Zauberberg"  # stands in every text of the other tenant
IDENTIFIER = re.compile(r"[0-9A-Z]{10}[0-9A-Z*~$=]|P-[0-9A-Z]{5}-[0-9A-Z]{5}")
DEFINITION = "transfer-of-lease"  # that both begin
AGENCY = "millbrook-environment"  # whose agent Ada is
SENT_NUMBER = "2"  # of a transmission, and of a piece in it: what is guessed is another one
# What no tenant has: of the right form, of a wrong one, and what means something to a file system, a shell or a header.
NOBODYS = (
    "0" * 32, "f" * 32, "00000000000", "ZZZZZZZZZZ0", "1", "0", "-1", "admin", "new", "%2e%2e", "..%2f..%2fetc%2fpasswd",
    "%00", "%0d%0aset-cookie:%20a=b", "'%20or%201=1--", "{{7*7}}", "%F0%9F%92%A9", "a" * 4000,
)  # fmt: skip


class Town:
    """
    Ada and Bob each have an account, a private space, and a business space with a colleague, an open invitation, a
    document, an item of information and a procedure with an attachment, one that their private space has transferred to it,
    and an attempt to sign each that is over; and one that was sent, with messages of both sides. Ada is the one who asks; she
    works for the administration that hers was sent to, and Bob's went to another one.
    """

    def __init__(self, place: Place) -> None:
        self.place = place
        self.engine = place.services.engine
        self.ada, self.bob = place.visitor(), place.visitor()
        self.ada.logs_in("Ada", "Lovelace")
        self.ada_space = _settles(self.ada, "Engines")
        _keeps(self.ada, self.ada_space, "Engine drawing")
        _begins(self.ada, self.ada_space, "Engine Lane")
        _attaches(place, self.ada_space, "Engine lease")
        self._signs(self.ada, self.ada_space, "Engine Row")
        self._sends(self.ada, self.ada_space, "Engine", AGENCY)
        self._has_team(self.ada, self.ada_space, "Eve", "Engineer")
        before = set(_ids(self.engine))
        self.bob.logs_in("Bob", MARKER)
        self.bob_space = _settles(self.bob, f"{MARKER} Works")
        _keeps(self.bob, self.bob_space, f"{MARKER} drawing")
        _begins(self.bob, self.bob_space, f"{MARKER} Lane")
        _attaches(place, self.bob_space, f"{MARKER} lease")
        self._signs(self.bob, self.bob_space, f"{MARKER} Row")
        self._sends(self.bob, self.bob_space, MARKER, "millbrook-town-hall")
        self._has_team(self.bob, self.bob_space, "Clem", MARKER)
        self.foreign = sorted(set(_ids(self.engine)) - before)
        assert self.bob_space in self.foreign
        assert len(self.foreign) >= 4
        self.carol = place.visitor()  # has not accepted the terms
        self.carol.logs_in("Carol", "Newcomer", terms=False)
        self.nobody = place.visitor()
        self.token = self._invited(self.ada, self.ada_space, "Ada", "Lovelace")  # as if she had a second address
        agent = {"account": self.account(), "administration": AGENCY}
        with self.engine.begin() as connection:
            connection.execute(insert(schema.agents).values(agent))

    def paths(self, route: Route) -> list[str]:
        """With each of Ada's own ids; fails for a parameter that `OWN` does not know."""
        paths = [route.path]
        for name in parameters(route):
            assert name in OWN, f"tests/portal/town.py does not know where a {{{name}}} comes from"
            paths = [path.replace(f"{{{name}}}", one) for path in paths for one in self._own(route, name)]
        assert paths, f"Ada has nothing to ask {route.path} for"
        return paths

    def strangers(self, route: Route) -> Iterator[str]:
        """The route's paths with another's, a guessed or a malformed id in each place in turn, and Ada's own in the others."""
        names = parameters(route)
        for wrong in names:
            path = route.path
            for name in names:
                if name != wrong:
                    path = path.replace(f"{{{name}}}", self._own(route, name)[0])
            for id_ in (*self.foreign, *NOBODYS):
                yield path.replace(f"{{{wrong}}}", id_)

    def _own(self, route: Route, name: str) -> list[str]:
        """Where only what was sent has such a page, that; else whatever there is."""
        return OWN["sent" if name == "reference" and route.name in OF_SENT else name](self)

    def account(self) -> str:
        with self.engine.connect() as connection:
            found = select(schema.accounts.c.id).where(schema.accounts.c.given == "Ada")
            return str(connection.execute(found).scalar_one())

    def of_account(self, column: Any, account: Any) -> list[str]:
        with self.engine.connect() as connection:
            return list(connection.execute(select(column).where(account == self.account())).scalars())

    def of_space(self, column: Any, space: Any) -> list[str]:
        own = select(schema.spaces.c.id).where(schema.spaces.c.identifier == self.ada_space).scalar_subquery()
        with self.engine.connect() as connection:
            return list(connection.execute(select(column).where(space == own)).scalars())

    def references(self, *, is_sent: bool) -> list[str]:
        """Of what was, or was not, sent in Ada's space."""
        sent = schema.procedures.c.transmissions > 0
        with self.engine.connect() as connection:
            some = set(
                connection.execute(select(schema.procedures.c.reference).where(sent if is_sent else ~sent)).scalars()
            )
        return [one for one in self.of_space(schema.procedures.c.reference, schema.procedures.c.space) if one in some]

    def of_messages(self) -> list[str]:
        """Of the procedure that Ada has sent."""
        own = schema.procedures.c.reference == OWN["sent"](self)[0]
        query = select(schema.messages.c.id).join(schema.procedures).where(own)
        with self.engine.connect() as connection:
            return list(connection.execute(query).scalars())

    def _has_team(self, person: Visitor, space: str, given: str, family: str) -> None:
        """A colleague who has accepted, and the person herself invited once more: that stays open."""
        colleague = self.place.visitor()
        colleague.logs_in(given, family)
        token = self._invited(person, space, given, family)
        done = colleague.post(f"/invitations/{token}/accept", page=f"/invitations/{token}")
        assert done.status_code == 303, done.text
        self._invited(person, space, given, f"{family} II")

    def _signs(self, person: Visitor, space: str, premises: str) -> None:
        """As if the private space had signed a procedure and transferred it, and the other one had begun to sign both of its own."""
        private = next(one for one in person.json("/spaces").json()["mine"] if one["kind"] == "private")["identifier"]
        _begins(person, private, premises)
        tables, now = schema, self.place.services.clock.now()
        with self.engine.begin() as connection:
            own = (
                connection.execute(select(tables.spaces).where(tables.spaces.c.identifier == private)).mappings().one()
            )
            other = connection.execute(
                select(tables.spaces.c.id).where(tables.spaces.c.identifier == space)
            ).scalar_one()
            [transferred] = connection.execute(
                select(tables.procedures.c.id).where(tables.procedures.c.space == own["id"])
            ).scalars()
            [theirs] = connection.execute(
                select(tables.procedures.c.id).where(tables.procedures.c.space == other)
            ).scalars()
            pdf = b"%PDF-1.7 " + premises.encode()
            file, sha256 = self.place.services.blobs.write(pdf), hashlib.sha256(pdf).hexdigest()
            connection.execute(
                insert(tables.signatures).values(
                    id=new_id(), procedure=transferred, number=1, account=own["owner"], credential="none",
                    fingerprint="0" * 64, file=file, sha256=sha256, form_sha256=sha256, approved=now, time=now,
                )
            )  # fmt: skip
            connection.execute(
                update(tables.procedures)
                .where(tables.procedures.c.id == transferred)
                .values(entry="confirmed", signature="first", second=other, second_state="transferred")
            )
            for procedure, number in ((theirs, 1), (transferred, 2)):
                connection.execute(
                    insert(tables.signings).values(
                        id=new_id(), procedure=procedure, account=own["owner"], session="", space=other, number=number,
                        state="cancelled", created=now, seen=now,
                    )
                )  # fmt: skip

    def _sends(self, person: Visitor, space: str, title: str, administration: str) -> None:
        """As if it had been: a signed form with one piece, sent back once and sent again; and a message of each side."""
        _begins(person, space, f"{title} Square")
        pdf = b"%PDF-1.7 " + title.encode()
        file, sha256 = self.place.services.blobs.write(pdf), hashlib.sha256(pdf).hexdigest()
        tables, now = schema, self.place.services.clock.now()
        with self.engine.begin() as connection:
            newest = select(tables.procedures).order_by(text("rowid DESC")).limit(1)
            row = connection.execute(newest).mappings().one()
            own, who = {"procedure": row["id"]}, {"account": row["author"]}
            values = {"status": "sent", "entry": "confirmed", "signature": "valid", "transmissions": int(SENT_NUMBER)}
            connection.execute(
                update(tables.procedures)
                .where(tables.procedures.c.id == row["id"])
                .values(administration=administration, sent_by=row["author"], **values)
            )
            content = {"file": file, "sha256": sha256}
            sent = {**own, "number": int(SENT_NUMBER)}
            connection.execute(
                insert(tables.transmissions).values(**sent, **who, **content, time=now, answers=row["answers"])
            )
            connection.execute(
                insert(tables.transmission_pieces).values(
                    **sent, **content, position=int(SENT_NUMBER), type="lease", name=f"{title} lease",
                    media_type="application/pdf", size=len(pdf),
                )
            )  # fmt: skip
            request = {"id": new_id(), "number": int(SENT_NUMBER)}
            connection.execute(insert(tables.corrections).values(**own, **who, **request, time=now, answered=now))
            connection.execute(
                insert(tables.correction_items).values(
                    correction=request["id"], position=1, kind="field", target="premises", comment=f"{title}?"
                )
            )
            for number, side in enumerate(("applicant", "administration"), 1):
                said = {"number": number, "side": side, "subject": f"Of {title}", "body": f"About {title}."}
                connection.execute(insert(tables.messages).values(id=new_id(), **own, **who, **said, time=now))
            connection.execute(
                insert(tables.procedure_history).values(
                    **own, **who, time=now, status="sent", side="applicant", comment=""
                )
            )

    def _invited(self, person: Visitor, space: str, given: str, family: str) -> str:
        """The token in the invitation's link."""
        page = f"/spaces/{space}/team/invite"
        fields = {
            "given": given,
            "family": family,
            "email": f"{given.lower()}@invited.example",
            "role": "viewer",
            "language": "en",
        }
        made = person.post(page, fields, page=page)
        assert made.status_code == 303, made.text
        return self.last_link().rsplit("/", 1)[1]

    def last_link(self) -> str:
        """Of the newest invitation's mail."""
        mails = select(schema.outbox.c.data).where(schema.outbox.c.template == "invitation")
        with self.engine.connect() as connection:
            found = connection.execute(mails.order_by(text("outbox.rowid"))).scalars().all()
        return str(json.loads(found[-1])["link"])


# Routes that only a procedure has that was sent.
OF_SENT = frozenset({
    "transmission", "transmission-form", "transmission-piece", "messages", "new-message", "write-message", "open-message",
})  # fmt: skip
# A path's parameter -> Ada's own ids of that kind.
OWN: Mapping[str, Callable[[Town], list[str]]] = {
    "topic": lambda _: sorted(topics()),
    "space": lambda town: [town.ada_space],
    "member": lambda town: town.of_space(schema.members.c.account, schema.members.c.space),
    "invitation": lambda town: town.of_space(schema.invitations.c.id, schema.invitations.c.space),
    "token": lambda town: [town.token],
    "product": lambda town: town.of_account(schema.products.c.id, schema.products.c.account),
    "document": lambda town: town.of_account(schema.documents.c.id, schema.documents.c.added_by),
    "group": lambda _: ["address", "bank"],
    "definition": lambda _: [DEFINITION],
    "reference": lambda town: town.references(is_sent=False),
    "step": lambda _: ["lease"],
    "slot": lambda _: ["lease"],
    "attachment": lambda town: town.of_account(schema.attachments.c.id, schema.attachments.c.added_by),
    "signing": lambda town: town.of_space(schema.signings.c.id, schema.signings.c.space),
    "sent": lambda town: town.references(is_sent=True),
    "number": lambda _: [SENT_NUMBER],
    "position": lambda _: [SENT_NUMBER],
    "message": lambda town: town.of_messages(),
    "transferred": lambda town: town.of_space(schema.procedures.c.reference, schema.procedures.c.second),
}


def parameters(route: Route) -> list[str]:
    return re.findall(r"{(\w+)}", route.path)


def _settles(person: Visitor, title: str) -> str:
    """A private and a business space; the business one's identifier."""
    page = "/spaces/new/private"
    made = person.post(page, {"email": f"{title.split(maxsplit=1)[0].lower()}@example.org"}, page=page)
    assert made.status_code == 303, made.text
    return person.creates_business(title, email=f"{title.split(maxsplit=1)[0].lower()}-office@example.org")


def _keeps(person: Visitor, space: str, name: str) -> None:
    """A document in the archive, and an item of information."""
    page = f"/spaces/{space}/files"
    file = {"file": ("drawing.png", png_image(), "image/png")}
    done = person.post(page, {"type": "other", "name": name}, page=page, files=file)
    assert done.status_code == 303, done.text
    page = f"/spaces/{space}/information/bank"
    done = person.post(page, {"version": "0", "account_holder": name}, page=page)
    assert done.status_code == 303, done.text


def _begins(person: Visitor, space: str, premises: str) -> None:
    """A procedure with one answer."""
    page = f"/spaces/{space}/catalogue/{DEFINITION}"
    made = person.post(page, page=page)
    assert made.status_code == 303, made.text
    step = made.headers["location"]
    done = person.post(step, {"version": "1", "premises": premises, "go": "later"}, page=step)
    assert done.status_code == 303, done.text


def _attaches(place: Place, space: str, name: str) -> None:
    """To the one procedure of the space, whatever it is in."""
    query = select(schema.procedures.c.id, schema.procedures.c.author).join(
        schema.spaces, schema.procedures.c.space == schema.spaces.c.id
    )
    blob = place.services.blobs.write(png_image())
    with place.services.engine.begin() as connection:
        row = connection.execute(query.where(schema.spaces.c.identifier == space)).one()
        connection.execute(
            insert(schema.attachments).values(
                id=new_id(), procedure=row.id, slot="lease", type="lease", name=name, media_type="image/png", size=1,
                file=blob, sha256="0" * 64, scan="clean", scan_note="", scan_tries=0, scan_next=0, added=1,
                added_by=row.author,
            )
        )  # fmt: skip


def _ids(engine: Engine) -> Iterator[str]:
    """Whatever in the database looks like an id that a path could have."""
    for rows in picture(engine).values():
        for row in rows:
            for value in row:
                if isinstance(value, str) and (re.fullmatch(r"[0-9a-f]{32}", value) or IDENTIFIER.fullmatch(value)):
                    yield value


def picture(engine: Engine, *, without: tuple[str, ...] = ()) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table; not when a session was last seen, which each request may move."""
    found = {}
    with engine.connect() as connection:
        for table in schema.METADATA.sorted_tables:
            if table.name not in without:
                columns = [one for one in table.c if one is not schema.sessions.c.seen]
                found[table.name] = sorted((tuple(row) for row in connection.execute(select(*columns))), key=repr)
    return found


def on_the_wire(
    app: Any, method: str, raw_path: bytes, headers: list[tuple[bytes, bytes]], body: Iterable[bytes] = ()
) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    """A request whose path no client has tidied, its body in pieces without a length; status, headers and body."""
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "https",
        "path": unquote(raw_path.decode("ascii")), "raw_path": raw_path, "query_string": b"", "root_path": "",
        "headers": [(b"host", b"portal.test"), *headers], "client": ("127.0.0.1", 1), "server": ("portal.test", 443),
        "state": {},
    }  # fmt: skip
    pieces = iter(body)
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        piece = next(pieces, None)
        return {"type": "http.request", "body": piece or b"", "more_body": piece is not None}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    asyncio.run(app(scope, receive, send))
    start = next(one for one in sent if one["type"] == "http.response.start")
    return start["status"], list(start["headers"]), b"".join(one.get("body", b"") for one in sent)
