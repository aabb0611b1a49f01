"""The virtual card and its pcscd are what the tests of real cards rest on: held against OpenSC's own programs and PC/SC."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from tests.card import Card, Pcscd, Reader, has_card, is_logged_in, transmit
from tests.card.client import ASK, SELECT, PcscError
from tests.card.pcscd import OPENSC
from tests.card.piv import PIN, PIN_REF, PUK, PUK_REF, tlv
from tests.daemon import until
from tests.processes import gone

VERIFY = bytes.fromhex("0020008008") + PIN.encode() + b"\xff\xff"
IDS = {0x9A: "01", 0x9C: "02", 0x9D: "03", 0x9E: "04", 0x82: "05"}


@pytest.fixture(scope="module")
def pcscd() -> Iterator[Pcscd]:
    with Pcscd("left", "right") as started:
        yield started


@pytest.fixture
def left(pcscd: Pcscd) -> Iterator[Reader]:
    """The left reader, empty before and after."""
    yield pcscd["left"]
    if pcscd["left"].card is not None:
        pcscd["left"].remove()
    until(lambda: not has_card(pcscd.environment, pcscd["left"].name), what="pcscd sees that the card is gone")


def insert(pcscd: Pcscd, card: Card, name: str = "left") -> Card:
    pcscd[name].insert(card)
    until(lambda: has_card(pcscd.environment, pcscd[name].name), what="pcscd sees the card")
    return card


def run(pcscd: Pcscd, *words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(word) for word in words],
        env=os.environ | pcscd.environment, check=False, text=True, capture_output=True, timeout=30,
    )  # fmt: skip


def sign(pcscd: Pcscd, directory: Path, reference: int, mechanism: str, pin: str = PIN) -> tuple[bytes, str]:
    """A signature over b'data' by OpenSC's own program, and what it said."""
    data, signature = directory / "data", directory / "signature"
    data.write_bytes(b"data")
    signature.unlink(missing_ok=True)
    words = ["--login", "--pin", pin, "--sign", "--id", IDS[reference], "-m", mechanism, "-i", data, "-o", signature]
    done = run(pcscd, "pkcs11-tool", "--module", OPENSC, *words, "--signature-format", "openssl")
    return (signature.read_bytes() if done.returncode == 0 else b""), done.stderr


def verify(spki: bytes, signature: bytes) -> None:
    key = serialization.load_der_public_key(spki)
    if isinstance(key, rsa.RSAPublicKey):
        key.verify(signature, b"data", padding.PKCS1v15(), hashes.SHA256())
    else:
        assert isinstance(key, ec.EllipticCurvePublicKey)
        key.verify(signature, b"data", ec.ECDSA(hashes.SHA256()))


# ---- the card through OpenSC


def test_opensc_signs_with_every_kind_of_key(pcscd: Pcscd, left: Reader, tmp_path: Path) -> None:
    """Keys that want their PIN once, each time, and never; a retired one; and the log says what was signed."""
    card = Card()
    kinds = {0x9A: "rsa2048", 0x9C: "p256", 0x9D: "rsa3072", 0x9E: "p384", 0x82: "p256"}
    spkis = {reference: card.add(reference, kind) for reference, kind in kinds.items()}
    insert(pcscd, card)
    for reference, kind in kinds.items():
        mechanism = "SHA256-RSA-PKCS" if kind.startswith("rsa") else "ECDSA-SHA256"
        signature, said = sign(pcscd, tmp_path, reference, mechanism)
        verify(spkis[reference], signature or pytest.fail(said))
    assert [event.reference for event in card.seen("sign")] == list(kinds)
    assert {event.status for event in card.seen("verify")} == {0x9000}
    assert card.serial in run(pcscd, "pkcs11-tool", "--module", OPENSC, "-L").stdout
    assert left.card is card


def test_wrong_pins_lock_the_card_and_the_puk_unblocks_it(pcscd: Pcscd, left: Reader, tmp_path: Path) -> None:
    """The counter is the card's own: it outlives a re-plug; at none left the right PIN is refused, until the PUK comes."""
    card = Card()
    card.add(0x9A, "p256")
    insert(pcscd, card)
    for tries in (2, 1, 0):
        assert "CKR_PIN" in sign(pcscd, tmp_path, 0x9A, "ECDSA-SHA256", pin="111111")[1]
        assert card.tries[PIN_REF] == tries
    left.remove()
    until(lambda: not has_card(pcscd.environment, pcscd["left"].name), what="pcscd sees that it is gone")
    insert(pcscd, card)
    assert sign(pcscd, tmp_path, 0x9A, "ECDSA-SHA256")[0] == b""
    assert not card.seen("sign")
    wrong = run(pcscd, "pkcs15-tool", "--unblock-pin", "--puk", "87654321", "--new-pin", "222222")
    assert wrong.returncode
    assert card.tries == {PIN_REF: 0, PUK_REF: 2}
    assert run(pcscd, "pkcs15-tool", "--unblock-pin", "--puk", PUK, "--new-pin", "222222").returncode == 0
    assert card.tries == {PIN_REF: 3, PUK_REF: 3}
    assert sign(pcscd, tmp_path, 0x9A, "ECDSA-SHA256", pin="222222")[0]
    assert PIN not in repr(card.events), "the log names a PIN"


def test_the_card_fails_as_it_is_told(pcscd: Pcscd, left: Reader, tmp_path: Path) -> None:
    """A status word, a hang, a latency, and death in the middle of a signature, after which it is gone from its reader."""
    card = Card()
    card.add(0x9A, "p256")
    insert(pcscd, card)
    card.words = [0x6F00] * 4  # OpenSC tries again with the PIN that it has cached
    assert "CKR_GENERAL_ERROR" in sign(pcscd, tmp_path, 0x9A, "ECDSA-SHA256")[1]
    card.words = []
    for name in ("hang_s", "latency_s"):
        setattr(card, name, 0.5)
        began = time.monotonic()
        assert sign(pcscd, tmp_path, 0x9A, "ECDSA-SHA256")[0]
        assert time.monotonic() - began > 0.5, name
    card.latency_s, card.dies_in = 0.0, 1
    assert sign(pcscd, tmp_path, 0x9A, "ECDSA-SHA256")[0] == b""
    assert card.seen("sign")[-1].status == 0, "it answered"
    until(lambda: not has_card(pcscd.environment, pcscd["left"].name), what="pcscd sees that the card has died")
    left.remove()
    insert(pcscd, card)
    assert sign(pcscd, tmp_path, 0x9A, "ECDSA-SHA256")[0]


def test_a_card_that_hangs_can_be_pulled(pcscd: Pcscd, left: Reader, tmp_path: Path) -> None:
    """Whoever waits for it is told at once, and not after the hang."""
    card = Card()
    card.add(0x9A, "p256")
    insert(pcscd, card)
    card.hang_s = 60.0
    began = time.monotonic()
    words = ["--login", "--pin", PIN, "--sign", "--id", "01", "-m", "ECDSA-SHA256", "-i", "/dev/null"]
    asking = subprocess.Popen(
        ["pkcs11-tool", "--module", str(OPENSC), *words],
        env=os.environ | pcscd.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    until(lambda: card.hang_s == 0, what="the signature hangs")
    left.remove()
    assert asking.wait(10) != 0
    assert time.monotonic() - began < 15


# ---- the card, command by command


def test_a_login_lasts_until_the_power_is_gone(pcscd: Pcscd, left: Reader) -> None:
    """What a program that was given the PIN leaves behind, another program finds; a card that was pulled has forgotten."""
    card = insert(pcscd, Card())
    where = (pcscd.environment, left.name)
    assert not is_logged_in(*where)
    assert transmit(*where, SELECT, VERIFY)[1] == b"\x90\x00"
    assert is_logged_in(*where)
    left.remove()
    until(lambda: not has_card(pcscd.environment, pcscd["left"].name), what="pcscd sees that it is gone")
    insert(pcscd, card)
    assert not is_logged_in(*where)
    assert [event.what for event in card.events] == ["ask", "verify", "ask", "ask"]


def authenticate(reference: int, algorithm: int = 0x11) -> bytes:
    data = tlv(0x7C, tlv(0x82, b"") + tlv(0x81, bytes(32)))
    return bytes([0, 0x87, algorithm, reference, len(data)]) + data + b"\0"


def test_the_signature_key_wants_its_pin_each_time() -> None:
    """9C after a PIN and reading, but not after another signature, nor twice."""
    card = Card()
    for reference in (0x9A, 0x9C):
        card.add(reference, "p256")
    discovery = bytes.fromhex("00cb3fff035c017e00")

    def status(*commands: bytes) -> str:
        return [card.transmit(command) for command in commands][-1][-2:].hex()

    assert status(authenticate(0x9A)) == "6985", "nothing was selected"
    assert status(SELECT, authenticate(0x9A)) == "6982"
    assert status(VERIFY, discovery, authenticate(0x9C)) == "9000"
    assert status(authenticate(0x9C)) == "6982"
    assert status(authenticate(0x9A)) == "9000"
    assert status(VERIFY, authenticate(0x9A), authenticate(0x9C)) == "6982"


@pytest.mark.parametrize(
    ("command", "word"),
    [
        ("00", "6700"),
        ("8020008000", "6e00"),
        ("00ee0000", "6d00"),
        ("002000800431323334", "6700"),  # four characters that nobody filled up
        ("00200081083132333435363738", "6a88"),  # the PUK is not verified
        ("00cb3fff055c035fc10500", "6a82"),  # a certificate that is not there
        ("00cb3ffe055c035fc10500", "6a86"),
        ("00c0000000", "9000"),  # nothing is left to give
        ("00a4040004a0000001", "6a82"),
        ("00cb3fff035c00", "6700"),  # shorter than it says
        ("00871111047c028100", "6a86"),  # a key that is not there
    ],
)
def test_what_is_no_command_is_refused(command: str, word: str) -> None:
    """The status words of ISO/IEC 7816-4, and not a try is lost."""
    card = Card()
    card.transmit(SELECT)
    assert card.transmit(bytes.fromhex(command)).hex() == word
    assert card.tries == {PIN_REF: 3, PUK_REF: 3}


def test_long_answers_come_in_pages_and_long_commands_in_chains() -> None:
    card = Card()
    spki = card.add(0x9A, "rsa2048")
    card.transmit(SELECT)
    page = card.transmit(bytes.fromhex("00cb3fff055c035fc10500"))
    whole = page[:-2]
    while page[-2] == 0x61:
        page = card.transmit(bytes.fromhex("00c0000000"))
        whole += page[:-2]
    assert page[-2:] == b"\x90\x00"
    assert len(whole) > 512
    assert card.certificates[0x9A] in whole
    card.transmit(VERIFY)
    data = tlv(0x7C, tlv(0x82, b"") + tlv(0x81, bytes(255) + b"\1"))
    first, second = data[:200], data[200:]
    assert card.transmit(bytes([0x10, 0x87, 7, 0x9A, len(first)]) + first) == b"\x90\x00"
    answer = card.transmit(bytes([0, 0x87, 7, 0x9A, len(second)]) + second + b"\0")
    assert answer[-2:] == b"\x61\x08"
    answer = answer[:-2] + card.transmit(bytes.fromhex("00c0000000"))
    assert answer[-2:] == b"\x90\x00"
    assert bytes(255) + b"\1" in answer, "1 to any power is 1"
    assert len(spki) > 256


# ---- pcscd


def test_cards_in_two_readers_are_two_cards(pcscd: Pcscd, left: Reader) -> None:
    one, other = Card(), Card()
    insert(pcscd, one)
    insert(pcscd, other, "right")
    try:
        assert transmit(pcscd.environment, left.name, SELECT, VERIFY)[1] == b"\x90\x00"
        assert (len(one.seen("verify")), len(other.seen("verify"))) == (1, 0)
        assert not is_logged_in(pcscd.environment, pcscd["right"].name)
    finally:
        pcscd["right"].remove()


def test_pcscd_is_killed_and_started_while_others_go_on(pcscd: Pcscd, left: Reader) -> None:
    """A card that is in stays in, without power meanwhile; another pcscd at the same time is not touched."""
    mine, theirs = Card(), insert(pcscd, Card())
    with Pcscd("left") as second:
        insert(second, mine)
        assert transmit(second.environment, second["left"].name, SELECT, VERIFY)[1] == b"\x90\x00"
        assert not theirs.seen("verify")
        second.kill()
        with pytest.raises(PcscError):
            transmit(second.environment, second["left"].name, SELECT)
        second.start()
        until(lambda: has_card(second.environment, second["left"].name), what="the card is there again")
        assert not is_logged_in(second.environment, second["left"].name)
        ended = second.pid, second.directory
    assert not psutil.pid_exists(ended[0])
    assert not ended[1].exists()
    assert transmit(pcscd.environment, left.name, SELECT, ASK)[1] == b"\x63\xc3"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_the_program_obeys_its_socket_and_leaves_nothing(tmp_path: Path, number: int) -> None:
    """Its commands do what they say, mistakes are told, and pcscd ends with it, also when it is killed."""
    control = tmp_path / "control"

    def ask(line: str) -> dict[str, Any]:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(control))
            connection.sendall(line.encode() + b"\n")
            connection.shutdown(socket.SHUT_WR)
            return json.loads(connection.makefile().readline())  # type: ignore[no-any-return]

    words = [sys.executable, "-m", "tests.card", "--readers", "desk", "--keys", "9A=p256", "--control", control]
    under = []
    with subprocess.Popen(words, text=True, stdout=subprocess.PIPE) as program:
        try:
            assert program.stdout is not None
            name, _, path = program.stdout.readline().strip().removeprefix("export ").partition("=")
            assert ask("desk status")["inserted"] is True
            assert ask("desk remove")["inserted"] is False
            assert "error" in ask("desk remove"), "there is none in"
            assert ask("desk insert")["inserted"] is True
            assert "no such command" in ask("table insert")["error"]
            assert "cannot jump" in ask("desk jump")["error"]
            assert ask("kill") == {"pcscd": 0}
            assert ask("start")["pcscd"] > 0
            until(lambda: _logs_in({name: path}), what="the card answers")
            assert ask("desk status")["verify"] == 1
            under = psutil.Process(program.pid).children(recursive=True)
            assert any(child.name() == "pcscd" for child in under)
        finally:
            program.send_signal(number)
    until(lambda: all(gone(child) for child in under), what="pcscd has ended")
    until(lambda: not Path(path).parent.exists(), what="its directory is gone")


def _logs_in(environment: dict[str, str]) -> bool:
    try:
        return transmit(environment, "desk 00 00", SELECT, VERIFY)[1] == b"\x90\x00"
    except PcscError:
        return False
