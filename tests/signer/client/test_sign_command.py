"""`paraph sign` against a service that refuses: its exit code, and what it says."""

import re
import time
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import pytest

from pool import REASONS
from signer.cli import exits, waiting
from signer.errors import TABLE, Refusal, code_of, details
from signer.v1 import signing_pb2 as pb
from signer.v1 import signing_pb2_grpc
from tests.signer.access.calls import Paraph


class Refusing(signing_pb2_grpc.SigningServicer):  # type: ignore[misc]
    """Knows each credential, and refuses to sign as it is told: each document, or the call; then it signs."""

    def __init__(self) -> None:
        self.items: list[tuple[int, str]] = []
        self.calls: list[Refusal] = []
        self.asked = 0

    def GetCredential(self, request: Any, _context: Any) -> Any:  # noqa: N802 -- gRPC's name
        return pb.Credential(name=request.credential, gate="caller", key_type="P-256", state="ACTIVE")

    def SignDocuments(self, messages: Any, context: Any) -> Any:  # noqa: N802 -- gRPC's name
        list(messages)
        self.asked += 1
        if self.calls:
            refusal = self.calls.pop(0)
            context.set_trailing_metadata(details(refusal))
            context.abort(refusal.code, refusal.message)
        status, reason = self.items.pop(0)
        result = pb.DocumentResult(status=status, reason=reason, code=code_of(reason))  # type: ignore[arg-type]
        yield pb.SignDocumentsResponse(result=result)


@pytest.fixture
def refusing(tmp_path: Path) -> Iterator[Refusing]:
    """Behind the profile client.toml."""
    server = grpc.server(futures.ThreadPoolExecutor(2))
    servicer = Refusing()
    signing_pb2_grpc.add_SigningServicer_to_server(servicer, server)
    server.add_insecure_port(f"unix:{tmp_path / 's'}")
    server.start()
    (tmp_path / "client.toml").write_text(f'server = "unix:{tmp_path}/s"\n')
    yield servicer
    server.stop(0).wait()


def _files(directory: Path, count: int) -> list[Path]:
    found = [directory / f"{number}.csv" for number in range(count)]
    for path in found:
        path.write_text("a,b\n")
    return found


@pytest.mark.parametrize(
    ("items", "code"),
    [
        ([(pb.NOT_ATTEMPTED, "TOKEN_DRAINED")], 69),
        ([(pb.NOT_ATTEMPTED, "TOKEN_ABSENT")], 69),
        ([(pb.FAILED, "AUDIT_UNWRITABLE")], 75),
        ([(pb.FAILED, "AUTHZ_DIGEST")], 77),
        ([(pb.FAILED, "PDF_REJECTED")], 1),
        ([(pb.INDETERMINATE, "AUDIT_UNWRITABLE")], 1),  # who tries again would have it signed twice
        ([(pb.FAILED, "AUDIT_UNWRITABLE"), (pb.FAILED, "PDF_REJECTED")], 1),
        ([(pb.FAILED, "SPOOL_FULL"), (pb.FAILED, "AUDIT_UNWRITABLE")], 75),
    ],
)
def test_a_refused_document_has_the_exit_code_of_the_table(
    paraph: Paraph, refusing: Refusing, tmp_path: Path, items: list[tuple[int, str]], code: int
) -> None:
    """README.md's, by the reason; 1 where several files failed in different ways."""
    refusing.items = list(items)
    profile = tmp_path / "client.toml"
    done = paraph("sign", *_files(tmp_path, len(items)), "--credential", "c", "--profile", profile)
    assert done.code == code, done
    assert all(reason in done.err for _, reason in items)


def test_a_refused_call_has_the_exit_code_of_the_table(paraph: Paraph, refusing: Refusing, tmp_path: Path) -> None:
    """Where the caller may look at the credential, and not sign."""
    refusing.calls = [Refusal("RPC_NOT_ALLOWED")]
    done = paraph("sign", *_files(tmp_path, 1), "--credential", "c", "--profile", tmp_path / "client.toml")
    assert (done.code, "RPC_NOT_ALLOWED" in done.err) == (77, True), done


@pytest.mark.parametrize("reason", ["AUDIT_UNWRITABLE", "REVOCATION_UNAVAILABLE"])
def test_who_waits_is_told(
    paraph: Paraph, refusing: Refusing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    """One line, however many files and tries: for what, and until when. Then each of the rest is sent once, and it is 75."""
    monkeypatch.setattr(waiting, "WAIT_S", 1.0)
    monkeypatch.setattr(waiting, "QUIET_S", 0.3)
    refusing.calls = [Refusal(reason, retry_s=0.2) for _ in range(20)]
    began = time.monotonic()
    done = paraph("sign", *_files(tmp_path, 5), "--credential", "c", "--profile", tmp_path / "client.toml")
    assert done.code == 75, done
    first, *lines = done.err.splitlines()
    assert re.match(rf"paraph: waiting until \d\d:\d\d:\d\d: {reason}: ", first)
    assert [line.partition(": not signed: ")[2].startswith(reason) for line in lines] == [True] * 5
    assert time.monotonic() - began < 3
    assert 5 + 2 <= refusing.asked <= 5 + 5


def test_what_passes_at_once_needs_no_word(paraph: Paraph, refusing: Refusing, tmp_path: Path) -> None:
    """Refused twice, and then taken."""
    refusing.calls = [Refusal("BACKLOG_FULL", retry_s=0.01) for _ in range(2)]
    refusing.items = [(pb.FAILED, "PDF_REJECTED")]
    done = paraph("sign", *_files(tmp_path, 1), "--credential", "c", "--profile", tmp_path / "client.toml")
    assert refusing.asked == 3
    assert "waiting" not in done.err


def test_the_patience_of_the_command() -> None:
    """Long enough for what passes, and no longer than somebody looks at a terminal."""
    assert (waiting.WAIT_S, waiting.QUIET_S) == (30, 2)


def test_every_reason_has_an_exit_code() -> None:
    """UNAVAILABLE says two things to a script, so each such reason is in the table; none is there that does not exist."""
    reasons = {*TABLE, *REASONS}
    away = {reason for reason in reasons if Refusal(reason).code is grpc.StatusCode.UNAVAILABLE}
    assert away <= exits.OF_REASON.keys() <= reasons
