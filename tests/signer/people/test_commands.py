"""What people and operators do about people at a terminal: enrol, sign with codes or a PIN, list, suspend, unlock, rekey."""

import json
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from signer import own_batch
from signer.client import ServiceError
from signer.config import ROLES
from signer.gate import Bounds, Gate
from signer.otp import STEP_S
from signer.own_batch import opened
from signer.person import Shown
from signer.v1 import operator_pb2 as op
from signer.v1 import signing_pb2 as pb
from tests.daemon import REPOSITORY, until
from tests.examples import run, shown_in
from tests.hostile import minimal_pdf
from tests.signer.access.calls import Paraph, shim_of, signed
from tests.signer.people.persons import ALGORITHMS, CODE, OUTPUTS, STICK_PIN, Inbox, Person, Town, seen
from tests.signer.people.terminal import ENVIRONMENT, Terminal, profile

LAPTOPS = ("bob", "cleo", "dora", "eve", "gus", "ivy")
WRONG = "wrong horse 8"
CTRL_C, CTRL_D = b"\x03", b"\x04"


@pytest.fixture(scope="module")
def town() -> Iterator[Town]:
    """Each person has a computer with a certificate of her own; eve, cleo and gus enrol themselves below; ivy never does."""
    made = Town()
    for name in LAPTOPS:
        made.rig.callers[f"{name}-laptop"] = ("self", sorted(ROLES["self"]), None)
        made.rig.subjects[f"{name}-laptop"] = name
    made.wanted["eve"] = (Gate.CODE_HOTP, "eve", OUTPUTS, Bounds(), "content_commitment")
    made.wanted["gus"] = (Gate.CODE_SENT, "gus", OUTPUTS, Bounds(), "content_commitment")
    made.wanted["ivy"] = (Gate.CODE_TOTP, "ivy", OUTPUTS, Bounds(), "content_commitment")
    with made:
        yield made


@pytest.fixture(scope="module")
def profiles(town: Town, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    directory = tmp_path_factory.mktemp("profiles")
    return {name: profile(directory, town.rig, name) for name in town.rig.callers}


@pytest.fixture
def pdf(tmp_path: Path) -> Path:
    path = tmp_path / "contract.pdf"
    path.write_bytes(minimal_pdf(text="A contract."))
    return path


@pytest.fixture
def csv(tmp_path: Path) -> Path:
    path = tmp_path / "annex.csv"
    path.write_text("what,how many\nbushels,12\n")
    return path


def enrolled(town: Town, name: str, factor: str) -> Person:
    return town.people.get(name) or town.enrol(name, factor)


def listed(paraph: Paraph, profiles: dict[str, Path], name: str) -> dict[str, object]:
    done = paraph("subject", "list", name, "--json", "--profile", profiles["operator"])
    assert done.code == 0, done
    [one] = done.json
    return dict(one)


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def good(paraph: Paraph, profiles: dict[str, Path], *signed_files: Path) -> bool:
    done = paraph("verify", *signed_files, "--json", "--profile", profiles["portal"])
    return done.code == 0 and all(report["good"] for report in done.json)


# ---- enrolment

ENROLMENT = "Enrolment code, as it was sent to you: "


def test_enrolment_with_a_device(town: Town, paraph: Paraph, profiles: dict[str, Path]) -> None:
    """
    A mistyped enrolment code, a code that is too short, two that differ and a wrong one-time code are told and asked for
    again; then eve is enrolled, and the operator sees it.
    """
    url = town.inbox.url("eve")
    words = ("--webhook", url, "--factor", "hotp", "--profile", profiles["operator"])
    assert paraph("subject", "enrol", "eve", *words).code == 0
    pending = listed(paraph, profiles, "eve")
    assert (pending["state"], pending["factor"], pending["credentials"]) == ("PENDING", "hotp", ["eve"])
    assert pending["enrolment_begins"] < pending["enrolment_ends"]  # type: ignore[operator]
    assert pending["contact"] == url.replace("/eve", "/***")
    with Terminal("enrol", "--profile", profiles["eve-laptop"]) as terminal:
        terminal.expect(ENROLMENT)
        terminal.type("ABCD-EFGH")
        terminal.expect("ENROLMENT_UNKNOWN")
        terminal.expect(ENROLMENT)
        terminal.type(town.inbox.code("eve", "enrolment-code"))
        assert "█" in terminal.expect("takes this instead:"), "a picture to scan"
        terminal.hide("New secret code", "short")
        terminal.hide("choose another.\r\nNew secret code", CODE)
        terminal.hide("Once more: ", WRONG)
        terminal.hide("not the same; choose it again.\r\nNew secret code", CODE)
        terminal.hide("Once more: ", CODE)
        eve = Person("eve", "hotp", uri=uri_in(terminal.shown))
        terminal.hide("One-time code: ", "000000")
        terminal.hide("Type it again, or the next one.\r\nOne-time code: ", spaced(eve.otp()))
        assert terminal.end() == 0, terminal.shown
    town.people["eve"] = eve
    active = listed(paraph, profiles, "eve")
    assert (active["state"], active["enrolment_ends"], active["attempts"]) == ("ACTIVE", "", 1)
    assert town.reference(eve, seen([b"a letter"], credential="eve"))


def spaced(code: str) -> str:
    """As apps show it."""
    return f"{code[:3]} {code[3:]}"


def uri_in(shown: str) -> str:
    return next(line for line in shown.splitlines() if line.startswith("otpauth://"))


def test_enrolment_in_a_small_window(town: Town, paraph: Paraph, profiles: dict[str, Path], csv: Path) -> None:
    """
    No picture where it would not fit, but the address, and what to do for a picture. The code that has enrolled her is used
    up: signing asks for the next one, and not for the secret code again.
    """
    words = ("--webhook", town.inbox.url("cleo"), "--factor", "totp", "--profile", profiles["operator"])
    assert paraph("subject", "enrol", "cleo", *words).code == 0
    code = town.inbox.code("cleo", "enrolment-code")
    with Terminal("enrol", "--profile", profiles["cleo-laptop"], columns=40, lines=24) as terminal:
        terminal.expect(ENROLMENT)
        terminal.type(code)
        shown = terminal.before("New secret code")
        assert "make this window" in shown
        assert "█" not in shown
        cleo = Person("cleo", "totp", uri=uri_in(shown))
        terminal.hide("New secret code", CODE)
        terminal.hide("Once more: ", CODE)
        until(lambda: time.time() % STEP_S < STEP_S - 10, 11, "a step that lasts")
        terminal.hide("One-time code: ", cleo.otp())
        assert terminal.end() == 0, terminal.shown
    assert listed(paraph, profiles, "cleo")["state"] == "ACTIVE"
    with Terminal("sign", csv, "--credential", "cleo", "--profile", profiles["cleo-laptop"]) as terminal:
        terminal.hide("Secret code: ", CODE)
        terminal.hide("One-time code: ", cleo.last)
        terminal.expect("OTP_USED")
        terminal.expect("Type the next one-time code.\r\nOne-time code: ")
        terminal.press(CTRL_C)
        assert terminal.end() == 130
    assert names(csv.parent) == ["annex.csv"]


def test_enrolment_with_a_message(town: Town, paraph: Paraph, profiles: dict[str, Path]) -> None:
    """The one-time code is sent when the enrolment code was right, and the contact is shown masked."""
    words = ("--webhook", town.inbox.url("gus"), "--factor", "sent", "--profile", profiles["operator"])
    assert paraph("subject", "enrol", "gus", *words).code == 0
    code = town.inbox.code("gus", "enrolment-code")
    after = len(town.inbox.messages)
    with Terminal("enrol", "--profile", profiles["gus-laptop"]) as terminal:
        terminal.expect(ENROLMENT)
        terminal.type(code)
        terminal.expect("A one-time code was sent to " + town.inbox.url("***"))
        terminal.hide("New secret code", "password1")
        terminal.hide("Once more: ", "password1")
        otp = town.inbox.code("gus", "confirm-code", after)
        terminal.hide("One-time code: ", otp)
        terminal.expect("CODE_WEAK")
        terminal.hide("The one-time code is still good.\r\nNew secret code", CODE)
        terminal.hide("Once more: ", CODE)
        terminal.hide("One-time code: ", otp)
        assert terminal.end() == 0, terminal.shown
    assert listed(paraph, profiles, "gus")["state"] == "ACTIVE"


def test_another_secret_code(town: Town, profiles: dict[str, Path], csv: Path) -> None:
    """
    ASVS 6.2.2, 6.2.3: she changes it by the one that she has and a one-time code that is sent for it; one that is easy to
    guess, and a wrong old one, are told and asked for again. She signs with the new one, and is told of the change.
    """
    bob = enrolled(town, "bob", "sent")
    new, after = "clay and kiln 5", len(town.inbox.messages)
    with Terminal("code", "--credential", "bob", "--profile", profiles["bob-laptop"]) as terminal:
        terminal.hide("Present secret code: ", WRONG)
        terminal.hide("New secret code", "password1")
        terminal.hide("Once more: ", "password1")
        terminal.expect("A one-time code was sent to " + town.inbox.url("***"))
        otp = town.inbox.code("bob", "change-code", after)
        terminal.hide("One-time code: ", otp)
        terminal.expect("OTP_INCORRECT")
        terminal.hide("Present secret code: ", bob.code)
        terminal.hide("One-time code: ", otp)
        terminal.expect("CODE_WEAK")
        terminal.hide("The one-time code is still good.\r\nNew secret code", new)
        terminal.hide("Once more: ", new)
        terminal.hide("One-time code: ", otp)
        terminal.expect("Done. bob signs with the new secret code from now on.")
        assert terminal.end() == 0, terminal.shown
    assert town.inbox.next("bob", "code-changed", after)
    old, bob.code = bob.code, new
    assert town.authorise(bob, seen([b"a"], credential="bob"), code=old, otp="000000").reason == "OTP_EXPIRED"
    assert town.reference(bob, seen([b"a letter"], credential="bob"))


def test_an_enrolment_code_of_somebody_else(town: Town, paraph: Paraph, profiles: dict[str, Path]) -> None:
    """It is asked for three times, and then it is one line, and what to do; it is no argument, which others could see."""
    with Terminal("enrol", "--profile", profiles["eve-laptop"]) as terminal:
        for _ in range(3):
            terminal.expect(ENROLMENT)
            terminal.type("ABCD-EFGH")
        assert terminal.end() == 1
        assert terminal.shown.splitlines()[-1].startswith("paraph: ENROLMENT_UNKNOWN")
    with Terminal("enrol", "ABCD-EFGH", "--profile", profiles["eve-laptop"]) as terminal:
        assert terminal.end() == 2


# ---- signing with codes


def test_a_pdf_and_another_file(town: Town, paraph: Paraph, profiles: dict[str, Path], pdf: Path, csv: Path) -> None:
    """
    Ada sees both files, whole SHA-256, before she is asked for anything; a wrong code is told, and what to do; each of
    PAdES and CAdES takes a one-time code, the secret code is typed once.
    """
    ada = enrolled(town, "ada", "hotp")
    with Terminal("sign", csv, pdf, "--credential", "ada-seen", "--profile", profiles["ada-laptop"]) as terminal:
        shown = terminal.before("Secret code: ")
        for path in (pdf, csv):
            digest = subprocess.run(["sha256sum", path], check=True, capture_output=True, text=True).stdout.split()[0]
            assert f"{path.name}  {path.stat().st_size:,} bytes" in shown
            assert digest in shown
        terminal.hide("Secret code: ", WRONG)
        otp = ada.otp()
        terminal.hide("One-time code: ", otp)
        terminal.hide("a device shows another one-time code each time.\r\nSecret code: ", CODE)
        terminal.hide("One-time code: ", spaced(ada.otp()))
        terminal.hide("One-time code: ", ada.otp())
        assert terminal.end() == 0, terminal.shown
    assert terminal.shown.count("Secret code: ") == 2
    assert names(pdf.parent) == ["annex.csv", "annex.csv.p7s", "contract-signed.pdf", "contract.pdf"]
    assert good(paraph, profiles, pdf.with_name("contract-signed.pdf"), csv.with_name("annex.csv.p7s"))


def test_a_code_that_was_sent(town: Town, profiles: dict[str, Path], csv: Path) -> None:
    """The terminal names the check code that the message has; with --json standard output has JSON alone."""
    bob = enrolled(town, "bob", "sent")
    after = len(town.inbox.messages)
    words = ("sign", csv, "--json", "--credential", "bob", "--profile", profiles["bob-laptop"])
    with Terminal(*words, piped=True) as terminal:
        terminal.expect("check code ")
        check_code = terminal.expect(":").removesuffix(":")
        assert check_code in town.inbox.next("bob", "sign-code", after)["text"]
        terminal.hide("Secret code: ", bob.code)
        terminal.hide("One-time code: ", town.inbox.code("bob", "sign-code", after))
        [row] = json.loads(terminal.out())
        assert terminal.end() == 0, terminal.shown
    assert (row["status"], row["output"]) == ("SIGNED", f"{csv}.p7s")
    assert csv.with_name("annex.csv.p7s").read_bytes()[:1] == b"\x30"


def test_three_wrong_codes(town: Town, paraph: Paraph, profiles: dict[str, Path], pdf: Path) -> None:
    """She is asked three times and no more; nothing is signed; an operator sees the attempts, and forgets them."""
    ada = enrolled(town, "ada", "hotp")
    before = signed(town.rig)
    with Terminal("sign", pdf, "--credential", "ada-seen", "--profile", profiles["ada-laptop"]) as terminal:
        for _ in range(3):
            terminal.hide("Secret code: ", WRONG)
            terminal.hide("One-time code: ", "000000")
        assert terminal.end() == 77
        assert terminal.shown.splitlines()[-1].startswith("paraph: OTP_INCORRECT")
    assert (names(pdf.parent), signed(town.rig)) == (["contract.pdf"], before)
    wrong = [town.authorise(ada, seen([b"a"]), code=WRONG, otp="000000").reason for _ in range(3)]
    assert wrong[-1] == "OTP_LOCKED"
    locked = listed(paraph, profiles, "ada")
    assert (locked["state"], locked["attempts"]) == ("ACTIVE", 5)
    assert locked["locked_until"]
    table = paraph("subject", "list", "--profile", profiles["operator"])
    assert f"LOCKED until {locked['locked_until']}" in table.out
    with Terminal("sign", pdf, "--credential", "ada-seen", "--profile", profiles["ada-laptop"]) as terminal:
        terminal.hide("Secret code: ", CODE)
        terminal.hide("One-time code: ", ada.otp())
        assert terminal.end() == 77
        assert "OTP_LOCKED" in terminal.shown
        assert "Try again in 15 minutes." in terminal.shown
    ada.counter -= 1
    assert paraph("subject", "unlock", "ada", "--profile", profiles["operator"]).code == 0
    assert not listed(paraph, profiles, "ada")["locked_until"]
    assert town.reference(ada, seen([b"a"]))


def test_suspended_and_resumed(town: Town, paraph: Paraph, profiles: dict[str, Path], pdf: Path) -> None:
    """What an operator does is in force at once, and the list says it."""
    ada = enrolled(town, "ada", "hotp")
    assert paraph("subject", "suspend", "ada", "--profile", profiles["operator"]).code == 0
    assert listed(paraph, profiles, "ada")["state"] == "SUSPENDED"
    with Terminal("sign", pdf, "--credential", "ada-seen", "--profile", profiles["ada-laptop"]) as terminal:
        terminal.hide("Secret code: ", CODE)
        terminal.hide("One-time code: ", "000000")
        assert terminal.end() == 1
        assert "SUBJECT_SUSPENDED" in terminal.shown
    assert names(pdf.parent) == ["contract.pdf"]
    assert paraph("subject", "resume", "ada", "--profile", profiles["operator"]).code == 0
    assert listed(paraph, profiles, "ada")["state"] == "ACTIVE"
    assert town.reference(ada, seen([b"a"]))
    done = paraph("subject", "list", "nobody", "--profile", profiles["operator"])
    assert (done.code, done.out) == (1, "")
    assert "SUBJECT_UNKNOWN" in done.err


def test_who_is_not_enrolled(profiles: dict[str, Path], pdf: Path) -> None:
    """She is told what to do before she is asked for anything."""
    with Terminal("sign", pdf, "--credential", "ivy", "--profile", profiles["ivy-laptop"]) as terminal:
        assert terminal.end() == 1
        assert terminal.shown.startswith("paraph: CREDENTIAL_PENDING: first set your secret code: paraph enrol")
    assert names(pdf.parent) == ["contract.pdf"]


def test_half_of_it(town: Town, profiles: dict[str, Path], pdf: Path, csv: Path) -> None:
    """The PDF is signed, and then she has no right code for the other file: both are told, in JSON too."""
    ada = enrolled(town, "ada", "hotp")
    words = ("sign", csv, pdf, "--json", "--credential", "ada-seen", "--profile", profiles["ada-laptop"])
    with Terminal(*words, piped=True) as terminal:
        terminal.hide("Secret code: ", CODE)
        terminal.hide("One-time code: ", ada.otp())
        terminal.hide("One-time code: ", "000000")
        for _ in range(2):
            terminal.hide("Secret code: ", CODE)
            terminal.hide("One-time code: ", "000000")
        rows = json.loads(terminal.out())
        assert terminal.end() == 77
    assert [(row["file"], row["status"], row.get("reason")) for row in rows] == [
        (str(csv), "PERMISSION_DENIED", "OTP_INCORRECT"),
        (str(pdf), "SIGNED", None),
    ]
    assert names(pdf.parent) == ["annex.csv", "contract-signed.pdf", "contract.pdf"]
    unlock = op.UnlockSubjectRequest(subject="ada")
    town["operator"].operator.UnlockSubject(unlock, timeout=10)


# ---- signing with a PIN


def stick_waits(town: Town) -> None:
    def state() -> int:
        tokens = town["operator"].operator.ListTokens(op.ListTokensRequest(), timeout=10).tokens
        return int(next(token.state for token in tokens if token.name == "stick"))

    until(lambda: state() == op.Token.OPEN, 10, "the stick waits for its person")


def batches(town: Town) -> dict[str, int]:
    """The states of dora's, by request id."""
    answer = town["dora-laptop"].signing.ListBatches(pb.ListBatchesRequest(), timeout=10)
    return {batch.request_id: batch.state for batch in answer.batches}


def one_more(town: Town, before: dict[str, int]) -> int:
    """The state of the only batch that is new."""
    [state] = (state for name, state in batches(town).items() if name not in before)
    return state


def test_with_a_pin(town: Town, paraph: Paraph, profiles: dict[str, Path], pdf: Path, csv: Path) -> None:
    """
    Both files are sent, signed on dora's own token with a PIN that is typed once, and fetched. A wrong one before is told
    with the tries that are left.
    """
    stick_waits(town)
    out = pdf.parent / "out"
    words = ("sign", csv, pdf, "--reason", "agreed", "--credential", "dora", "-o", out)
    with Terminal(*words, "--profile", profiles["dora-laptop"]) as terminal:
        terminal.hide("PIN of dora's token: ", "000000")
        assert "tries left: 2" in terminal.expect("Type it again")
        terminal.hide("PIN of dora's token: ", STICK_PIN)
        assert terminal.end() == 0, terminal.shown
    assert terminal.shown.count("PIN of dora's token: ") == 2
    assert "sending" in terminal.shown
    assert "fetching" in terminal.shown
    assert names(out) == ["annex.csv.p7s", "contract.pdf"]
    (csv.parent / "out" / "annex.csv").write_bytes(csv.read_bytes())
    assert good(paraph, profiles, out / "contract.pdf", out / "annex.csv.p7s")
    assert (out / "contract.pdf").read_bytes().startswith(pdf.read_bytes())
    modes = {path.stat().st_mode for path in (out / "contract.pdf", out / "annex.csv")}
    assert len(modes) == 1, "as the user's umask has it"
    assert set(batches(town).values()) == {pb.Batch.SIGNED}


async def test_the_docstring_signs_as_shown(town: Town, pdf: Path) -> None:
    """Her own program's batch, by the example of own_batch.py."""
    stick_waits(town)
    [example] = shown_in(own_batch.__doc__)
    target = pdf.with_name("signed.pdf")
    async with town.rig.client("dora-laptop") as client:
        given = {
            "client": client,
            "credential": "dora",
            "files": [(pdf, Shown.of(pdf))],
            "pin": STICK_PIN,
            "target": target,
        }
        await run(example, {**vars(own_batch), **given})
    assert target.read_bytes().startswith(pdf.read_bytes())


def test_the_last_try(town: Town, profiles: dict[str, Path], csv: Path) -> None:
    """
    After two wrong PINs no third one is sent to the token, not even the right one, unless she asks for that and says yes
    when she was told.
    """
    stick_waits(town)
    before = len(shim_of(town.rig).logins())
    words = ("sign", csv, "--credential", "dora", "--profile", profiles["dora-laptop"])
    with Terminal(*words) as terminal:
        terminal.hide("token: ", "000000")
        terminal.hide("token: ", "000001")
        terminal.hide("token: ", STICK_PIN)
        assert terminal.end() == 1
        assert "paraph: PIN_FINAL_TRY_GUARD" in terminal.shown
        assert "paraph sign --override-final-try" in terminal.shown
    for answer in ("no", "yes"):
        stick_waits(town)
        assert len(shim_of(town.rig).logins()) == before + 2
        assert names(csv.parent) == ["annex.csv"]
        with Terminal(*words, "--override-final-try") as terminal:
            terminal.hide("token: ", STICK_PIN)
            terminal.expect("Type 'yes' to send the PIN all the same: ")
            terminal.type(answer)
            assert terminal.end() == (0 if answer == "yes" else 1), terminal.shown
    assert len(shim_of(town.rig).logins()) == before + 3
    assert names(csv.parent) == ["annex.csv", "annex.csv.p7s"]


def test_a_token_that_fails_in_the_middle(town: Town, profiles: dict[str, Path], tmp_path: Path) -> None:
    """What was not signed is signed after the PIN was typed again; what was signed is not signed twice."""
    stick_waits(town)
    files = [tmp_path / f"{name}.csv" for name in "abc"]
    for file in files:
        file.write_text(f"{file.name},1\n")
    shim = shim_of(town.rig)
    before = signed(town.rig)
    shim.script(f"C_Sign {before + 2} return 0x05")
    try:
        with Terminal("sign", *files, "--credential", "dora", "--profile", profiles["dora-laptop"]) as terminal:
            terminal.hide("token: ", STICK_PIN)
            terminal.expect("Not all was signed yet: ")
            shim.clear()
            terminal.hide("token: ", STICK_PIN)
            assert terminal.end() == 0, terminal.shown
    finally:
        shim.clear()
    assert len(names(tmp_path)) == 6
    data = [call.data for call in shim.signs() if call.n > before]
    assert max(data.count(one) for one in data if one != data[1]) == 1


@pytest.mark.parametrize(
    ("when", "key"), [("asked", CTRL_C), ("asked", CTRL_D), ("signing", CTRL_C)], ids=["ctrl-c", "ctrl-d", "signing"]
)
def test_who_thinks_better_of_it(town: Town, profiles: dict[str, Path], pdf: Path, when: str, key: bytes) -> None:
    """At the prompt and while the token signs: nothing is left beside the file or at the daemon, and the terminal echoes."""
    stick_waits(town)
    shim, before, kept = shim_of(town.rig), signed(town.rig), names(town.rig.state / "kept")
    known = batches(town)
    if when == "signing":
        shim.script("C_Sign * hold 30")
    try:
        with Terminal("sign", pdf, "--credential", "dora", "--profile", profiles["dora-laptop"]) as terminal:
            if when == "asked":
                terminal.expect("PIN of dora's token: ")
                assert not terminal.echoes
            else:
                terminal.hide("PIN of dora's token: ", STICK_PIN)
                until(lambda: signed(town.rig) > before, 10, "the token signs")
            terminal.press(key)
            assert terminal.end() == 130, terminal.shown
            assert terminal.echoes
    finally:
        shim.clear()
    assert names(pdf.parent) == ["contract.pdf"]
    assert one_more(town, known) == pb.Batch.CANCELLED
    assert names(town.rig.state / "kept") == kept
    stick_waits(town)


async def test_a_file_that_was_changed_meanwhile(town: Town, csv: Path) -> None:
    """Between what she was shown and what was sent: there is nothing to be signed, and the batch is cancelled."""
    shown, known = Shown.of(csv), batches(town)
    csv.write_text(csv.read_text().replace("12", "13"))
    async with town.rig.client("dora-laptop") as client:
        with pytest.raises(ServiceError, match="changed after it was shown"):
            async with opened(client, "dora", [(csv, shown)], output="CADES_B_B", **ALGORITHMS):
                raise AssertionError("it was opened")
    assert one_more(town, known) == pb.Batch.CANCELLED


async def test_nothing_is_fetched_before_it_is_signed(town: Town, csv: Path) -> None:
    """Until then the daemon would give the document as it came, and that is no signed file."""
    target = csv.with_name("annex.csv.p7s")
    files = [(csv, Shown.of(csv))]
    async with (
        town.rig.client("dora-laptop") as client,
        opened(client, "dora", files, output="CADES_B_B", **ALGORITHMS) as batch,
    ):
        with pytest.raises(ServiceError, match="BATCH_STATE"):
            await batch.fetch(0, target)
    assert names(csv.parent) == ["annex.csv"]


def test_a_document_that_cannot_be_signed(town: Town, profiles: dict[str, Path], pdf: Path) -> None:
    """A batch is refused as a whole, before a PIN is asked for, and the message says by which document."""
    broken = pdf.with_name("broken.pdf")
    broken.write_bytes(b"%PDF-1.7\nnothing more")
    with Terminal("sign", pdf, broken, "--credential", "dora", "--profile", profiles["dora-laptop"]) as terminal:
        assert terminal.end() == 1
        assert "PDF_REJECTED" in terminal.shown
        assert "document number 2" in terminal.shown
        assert "PIN of" not in terminal.shown
    assert names(pdf.parent) == ["broken.pdf", "contract.pdf"]


# ---- where nobody can type, and other mistakes


@pytest.mark.parametrize(
    ("words", "said_"),
    [
        (["sign", "{csv}", "--credential", "dora", "--profile", "{dora}"], "is none; start this at one"),
        (["sign", "{csv}", "--credential", "ada-seen", "--profile", "{ada}"], "is none; start this at one"),
        (["enrol", "--profile", "{ada}"], "is none; start this at one"),
        (["sign", "{csv}", "--credential", "p-256", "--override-final-try", "--profile", "{portal}"], "p-256 has none"),
        (["sign", "{csv}", "--credential", "dora", "--enveloping", "--profile", "{dora}"], "leave out --enveloping"),
    ],
)
def test_what_is_refused_at_once(
    town: Town, profiles: dict[str, Path], csv: Path, words: list[str], said_: str
) -> None:
    """A PIN or a code is never read from a pipe: one line that says what to do instead, 2, and nothing is signed."""
    before = signed(town.rig)
    places = {"csv": csv, "ada": profiles["ada-laptop"], "dora": profiles["dora-laptop"], "portal": profiles["portal"]}
    done = subprocess.run(
        [sys.executable, "-m", "signer", *(word.format_map(places) for word in words)],
        cwd=REPOSITORY, env=ENVIRONMENT, input=f"{STICK_PIN}\n123456\n", capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, ""), done
    assert said_ in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert (names(csv.parent), signed(town.rig)) == (["annex.csv"], before)


@pytest.mark.parametrize(
    ("words", "said_"),
    [
        (["--gate", "code+totp"], "the gate code+totp goes with a subject"),
        (["--gate", "token-pin"], "the gate token-pin goes with a subject"),
        (["--subject", "ada"], "the gate caller goes without a subject"),
        (["--gate", "code+sms", "--subject", "ada"], "there is no gate 'code+sms'; there are caller, token-pin,"),
        (["--gate", "code+hotp", "--subject", "ada", "--lifetime", "301"], "an authorisation lives 1 to 300 s"),
        (["--gate", "code+hotp", "--subject", "ada", "--hours", "8-18"], "hours are two hours of the day"),
        (["--gate", "code+hotp", "--subject", "ada", "--digests-max", "5001"], "for at most 5000 digests"),
    ],
)
def test_credentials_that_are_refused(town: Town, paraph: Paraph, tmp_path: Path, words: list[str], said_: str) -> None:
    """What cannot be a person's credential is one line that says why, and nothing is stored."""
    config = tmp_path / "paraph.toml"
    config.write_text(town.rig.config.read_text().replace(f'"{town.rig.state}"', f'"{tmp_path}/state"'))
    chain = tmp_path / "chain.pem"
    chain.write_bytes(town.rig.credentials["p-256"][0])
    add = ("credential", "--config", config, "add", "x", "--certificate", chain, "--key-label", "k", *words)
    done = paraph(*add, "--output", "PADES_B_B")
    assert (done.code, done.out) == (1, "")
    assert said_ in done.err
    assert len(done.err.splitlines()) == 1
    assert paraph("credential", "--config", config, "list", "--json").json == []


def test_a_persons_credential_is_listed_as_hers(town: Town, paraph: Paraph) -> None:
    """Gate and person stand in the list, beside the certificate's own subject."""
    done = paraph("credential", "--config", town.rig.config, "list", "--json")
    gates = {row["name"]: (row["gate"], row["person"]) for row in done.json}
    assert gates["dora"] == ("token-pin", "dora")
    assert gates["ada-seen"] == ("code+hotp", "ada")
    assert gates["p-256"] == ("caller", "")


# ---- the key of seeds


def test_another_key_of_seeds(town: Town, profiles: dict[str, Path], csv: Path) -> None:
    """
    A key is made once and written over by nobody. While the daemon runs, and with a wrong old key, rekey changes nothing;
    with the right one every seed opens with the new key, and ada signs as before; a message that waits meanwhile comes
    once its server is back.
    """
    ada, rig = enrolled(town, "ada", "hotp"), town.rig
    old, new = rig.directory / "seeds.key", rig.directory / "new.key"
    assert rig.command("otp", "key", new).returncode == 0
    made = new.read_bytes()
    assert (len(made), new.stat().st_mode & 0o777) == (32, 0o400)
    again = rig.command("otp", "key", new)
    assert (again.returncode, new.read_bytes()) == (1, made)
    assert "exists and is not written over" in again.stderr
    away = Inbox()
    away.close()
    hal = op.EnrolSubjectRequest(subject="hal", contact_kind="webhook", contact=away.url("hal"), factor="hotp")
    town["operator"].operator.EnrolSubject(hal, timeout=10)
    seeds = _seeds(rig.state)
    assert seeds["ada"]
    rig.sections = [line.replace(str(old), str(new)) for line in rig.sections]
    rig.write_config()
    rekey = ("otp", "rekey", "--config", rig.config)
    busy = rig.command(*rekey, old)
    assert busy.returncode == 1
    assert "nothing was changed" in busy.stderr
    assert rig.stop() == 0
    wrong = rig.command(*rekey, new)
    assert wrong.returncode == 1
    assert "nothing was changed" in wrong.stderr
    assert _seeds(rig.state) == seeds
    done = rig.command(*rekey, old)
    assert done.returncode == 0, done
    count = len([seed for seed in seeds.values() if seed]) + 1  # hal's is with his enrolment
    assert done.stdout == f"encrypted with the configured key now: seeds {count}, messages that wait 1\n"
    assert all(_seeds(rig.state)[name] != seed for name, seed in seeds.items() if seed)
    rig.launch()
    rig.wait_serving()
    with Terminal("sign", csv, "--credential", "ada-seen", "--profile", profiles["ada-laptop"]) as terminal:
        terminal.hide("Secret code: ", CODE)
        terminal.hide("One-time code: ", ada.otp())
        assert terminal.end() == 0, terminal.shown
    assert names(csv.parent) == ["annex.csv", "annex.csv.p7s"]
    inbox = Inbox(away.port)
    try:
        until(lambda: inbox.messages, 40, "what had waited")
        assert [message["template"] for message in inbox.messages] == ["enrolment-code"]
    finally:
        inbox.close()


def _seeds(state: Path) -> dict[str, bytes]:
    """As they are stored."""
    with sqlite3.connect(f"file:{state / 'paraph.sqlite'}?mode=ro", uri=True) as connection:
        return dict(connection.execute("SELECT name, seed FROM subjects").fetchall())


def test_nothing_typed_is_written_anywhere(town: Town) -> None:
    """The daemon's log has none of the codes and PINs that the tests of this file have typed."""
    text = town.rig.log.read_text()
    assert not [secret for secret in (CODE, WRONG, STICK_PIN) if secret in text]
