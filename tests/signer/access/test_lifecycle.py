"""The daemon from start to end, its tokens through the operator's calls, and what it does when something dies."""

import json
import queue
import signal
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import google_crc32c
import grpc
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from signer import limits
from signer.v1 import operator_pb2 as op
from signer.v1 import signing_pb2 as pb
from tests.daemon import Rig, Token, running, until
from tests.processes import gone
from tests.signer.access.calls import (
    Answer,
    Caller,
    Paraph,
    answer_of,
    ask,
    card_rig,
    digest,
    digests,
    lane_pids,
    metric,
    processes,
    reload,
    said,
    shim_of,
    signed,
    statuses,
)
from tests.signer.ledger.book import documents, found, request, result, statuses_of
from tests.softhsm import PIN

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.fixture
def daemon() -> Iterator[Rig]:
    """A daemon of a test's own, which may end it."""
    made = card_rig("P-256")
    made.sockets = {"operator": ("operator.sock", "0600")}
    with running(made):
        yield made


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    """Two tokens behind one shim: 'card', and 'stick' whose configured PIN is wrong at first."""
    made = card_rig("P-256")
    made.store.token("stick", pin="4321")
    made.store.keys("stick", ["RSA-2048"])
    made.tokens.append(Token("stick", "stick", "signing-stick", module=shim_of(made).module, pin="9999"))
    made.add_keys("stick", ["RSA-2048"])
    with running(made):
        yield made


@pytest.fixture(scope="module")
def operator(rig: Rig) -> Iterator[Caller]:
    with Caller(rig, "operator") as caller:
        yield caller


@pytest.fixture(scope="module")
def portal(rig: Rig) -> Iterator[Caller]:
    with Caller(rig) as caller:
        yield caller


def token(operator: Caller, name: str) -> Any:
    answer = operator.operator.ListTokens(op.ListTokensRequest(), timeout=5)
    return next(each for each in answer.tokens if each.name == name)


def state(operator: Caller, name: str = "card") -> str:
    return op.Token.State.Name(token(operator, name).state)


def rsa(**changes: Any) -> Any:
    return ask(credential="rsa-2048", signature_algorithm="RSA_PKCS1_V15", **changes)


# ---- the end


def test_f47_sigterm_during_a_batch(daemon: Rig) -> None:
    """
    F47: on SIGTERM health says NOT_SERVING at once, the call in work finishes, new calls are told DRAINING, streams that
    wait for nothing end, lanes log out, and the process ends with 0 and leaves none behind.
    """
    everybody = processes(daemon)
    assert len(everybody) >= 3
    requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
    health = threading.Event()
    with Caller(daemon) as portal, Caller(daemon, "operator") as operator:
        watch = health_pb2_grpc.HealthStub(operator.channel).Watch(health_pb2.HealthCheckRequest(), timeout=60)
        assert next(watch).status == SERVING
        heard = []

        def listen() -> None:
            heard.append((next(watch).status, time.monotonic()))
            health.set()

        threading.Thread(target=listen).start()
        tokens = operator.operator.WatchTokens(op.WatchTokensRequest(), timeout=60)
        assert next(tokens).tokens
        stream = portal.signing.StreamDigests(iter(requests.get, None), timeout=60)
        requests.put(ask())
        assert next(stream).items[0].status == pb.SIGNED
        before = signed(daemon)
        shim_of(daemon).script(f"C_Sign {before + 1}+ delay 0.04")
        batch = portal.signing.SignDigests.future(ask(digests=digests(30, 100)), timeout=30)
        until(lambda: signed(daemon) >= before + 3)
        daemon.send_signal(signal.SIGTERM)
        began = time.monotonic()
        assert health.wait(5)
        [(status, when)] = heard
        assert status == NOT_SERVING
        assert when - began < 0.5
        refusal = until(lambda: a if (a := portal.sign()).code != "OK" else None)
        assert (refusal.code, refusal.reason, refusal.retry_s) == ("UNAVAILABLE", "DRAINING", 1.0)
        assert daemon.health() == NOT_SERVING, "a health check that connects only now is answered too"
        assert said(lambda: list(tokens)).brief == ("UNAVAILABLE", "DRAINING")
        assert said(lambda: next(stream)).brief == ("UNAVAILABLE", "DRAINING")
        assert statuses(Answer("OK", value=batch.result())) == ["SIGNED"] * 30
        requests.put(None)
        assert daemon.process is not None
        assert daemon.process.wait(10) == 0
    until(lambda: all(gone(process) for process in everybody), 2, "the end of every process")
    log = shim_of(daemon).log()
    signers = {call.pid for call in log if call.fn == "C_Sign"}
    assert (
        signers == {call.pid for call in log if call.fn == "C_Logout"} == {c.pid for c in log if c.fn == "C_Finalize"}
    )
    assert not shim_of(daemon).unfinished()
    assert not (daemon.directory / "operator.sock").exists()


def test_f47_stream_is_answered_before_it_ends(daemon: Rig) -> None:
    """F47: what a stream's client has sent is signed and answered before the stream is told DRAINING."""
    requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
    shim_of(daemon).script("C_Sign * delay 0.1")
    with Caller(daemon) as portal:
        stream = portal.signing.StreamDigests(iter(requests.get, None), timeout=60)
        for number in range(5):
            requests.put(ask(digests=digests(2, 10 * number)))
        assert len(next(stream).items) == 2
        daemon.send_signal(signal.SIGTERM)
        answers = []
        with pytest.raises(grpc.RpcError) as error:
            answers.extend(stream)
        assert answer_of(error.value).brief == ("UNAVAILABLE", "DRAINING")
        requests.put(None)
    assert daemon.stop() == 0


def test_f47_documents_are_answered_before_their_stream_ends(daemon: Rig) -> None:
    """
    F47: a document that is still arriving is signed and answered; no further one is begun, and the stream is told DRAINING. A
    stream that only waits delays nothing, and one whose document was its last has no error.
    """
    content = b"a document"
    wanted = {"output": "CADES_B_B", "digest_algorithm": "SHA256", "signature_algorithm": "ECDSA"}

    def opening() -> Any:
        return pb.SignDocumentsRequest(
            open=pb.OpenDocuments(request_id=str(uuid.uuid4()), credential="p-256", **wanted)
        )

    def begin(index: int) -> Any:
        return pb.SignDocumentsRequest(begin=pb.BeginDocument(index=index, size=len(content)))

    rest = [
        pb.SignDocumentsRequest(chunk=content),
        pb.SignDocumentsRequest(end=pb.EndDocument(crc32c=google_crc32c.value(content))),
    ]

    with Caller(daemon) as portal:
        busy: queue.SimpleQueue[Any] = queue.SimpleQueue()
        idle: queue.SimpleQueue[Any] = queue.SimpleQueue()
        whole: queue.SimpleQueue[Any] = queue.SimpleQueue()
        streams = [portal.signing.SignDocuments(iter(each.get, None), timeout=60) for each in (busy, idle, whole)]
        for each in (busy, idle, whole):
            for message in (opening(), begin(0), *rest):
                each.put(message)
        for stream in streams:
            assert next(stream).result.status == pb.SIGNED
        for each in (busy, whole):
            each.put(begin(1))
            each.put(rest[0])
        until(lambda: metric(daemon, "paraph_spool_bytes") == 2 * len(content), 5, "two documents that are arriving")
        daemon.send_signal(signal.SIGTERM)
        began = time.monotonic()
        with pytest.raises(grpc.RpcError) as error:
            list(streams[1])
        assert answer_of(error.value).brief == ("UNAVAILABLE", "DRAINING")
        assert time.monotonic() - began < 2
        whole.put(rest[1])
        whole.put(None)
        assert [message.result.index for message in streams[2] if message.HasField("result")] == [1]
        busy.put(rest[1])
        for message in (begin(3), *rest):
            busy.put(message)
        answers = []
        with pytest.raises(grpc.RpcError) as error:
            answers.extend(streams[0])
        assert answer_of(error.value).brief == ("UNAVAILABLE", "DRAINING")
        assert sorted(message.result.index for message in answers if message.HasField("result")) == [1]
        for each in (busy, idle):
            each.put(None)
        assert daemon.process is not None
        assert daemon.process.wait(10) == 0


def test_f47_documents_that_nobody_has_begun(daemon: Rig) -> None:
    """
    F47: a stream on which nothing has come yet, not even what it is for, is told DRAINING at once; a document that waits for
    room when the drain starts is not begun.
    """
    content = b"a document " * 20_000
    wanted = {"output": "CADES_B_B", "digest_algorithm": "SHA256", "signature_algorithm": "ECDSA"}
    requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
    with Caller(daemon) as portal:
        nothing = threading.Event()
        silent = portal.signing.SignDocuments(iter(lambda: nothing.wait() and None, None), timeout=30)
        shim_of(daemon).script("C_Sign * hold 30")
        stream = portal.signing.SignDocuments(iter(requests.get, None), timeout=30)
        order = pb.OpenDocuments(request_id=str(uuid.uuid4()), credential="p-256", **wanted)
        requests.put(pb.SignDocumentsRequest(open=order))
        for number in range(limits.DOCUMENTS_IN_WORK_MAX + 1):
            begin, crc = pb.BeginDocument(index=number), google_crc32c.value(content)
            requests.put(pb.SignDocumentsRequest(whole=pb.WholeDocument(begin=begin, content=content, crc32c=crc)))
        in_work = limits.DOCUMENTS_IN_WORK_MAX * len(content)
        until(lambda: metric(daemon, "paraph_spool_bytes") >= in_work, 5, "as many documents as there is room for")
        until(requests.empty)
        portal.signing.ListCredentials(pb.ListCredentialsRequest(), timeout=10)  # behind them, on the same connection
        assert metric(daemon, "paraph_calls_in_work") == 2
        daemon.send_signal(signal.SIGTERM)
        began = time.monotonic()
        assert said(lambda: list(silent)).brief == ("UNAVAILABLE", "DRAINING")
        assert time.monotonic() - began < 2
        shim_of(daemon).clear()
        answers = []
        with pytest.raises(grpc.RpcError) as error:
            answers.extend(stream)
        assert answer_of(error.value).brief == ("UNAVAILABLE", "DRAINING")
        results = [message.result for message in answers if message.HasField("result")]
        assert sorted(each.index for each in results) == list(range(limits.DOCUMENTS_IN_WORK_MAX))
        assert {each.status for each in results} == {pb.SIGNED}
        requests.put(None)
        nothing.set()
        assert daemon.process is not None
        assert daemon.process.wait(10) == 0


@pytest.fixture
def brief() -> Iterator[Rig]:
    """A daemon whose drain lasts 4 s, gives back what waits after 2, and answers everybody after 3."""
    made = card_rig("P-256")
    made.constants = {"DRAIN_S": 4.0, "DRAIN_GIVE_BACK_S": 2.0, "DRAIN_ANSWER_S": 1.0}
    shim_of(made).script("C_Sign * delay 0.15")
    with running(made):
        yield made


def whole(rig: Rig) -> None:
    """The daemon ends by itself with 0, its ledger has every C_Sign and nothing open, and the next one takes it on."""
    assert rig.process is not None
    assert rig.process.wait(15) == 0
    assert found(rig.state).open_intents == ()
    rig.launch()
    rig.wait_serving()


def test_f47_what_outlasts_the_drain_is_answered(brief: Rig) -> None:
    """
    F47: of a batch, and of documents, that last longer than the drain, what a lane has is signed, and the rest is
    NOT_ATTEMPTED in an answer like any other; the daemon ends with 0, and the same request goes on with the next one.
    """
    asking, file = request(digests=digests(60, 100)), bytes(100_000)  # what is made of them is little
    with Caller(brief) as portal, ThreadPoolExecutor(2) as threads:
        for number in range(3):  # it is known to be slow
            portal.sign(digests=digests(1, number))
        batch = threads.submit(portal.sign, asking, timeout_s=60)
        until(lambda: signed(brief) > 5)
        signing = threads.submit(documents, portal, str(uuid.uuid4()), dict.fromkeys(range(12), file), "CADES_B_B")
        until(lambda: metric(brief, "paraph_spool_bytes") >= 12 * len(file), 5, "all documents")
        brief.send_signal(signal.SIGTERM)
        began = time.monotonic()
        items = batch.result().value.items
        assert 1.9 < time.monotonic() - began < 3
        results = [result for result, _ in signing.result().values()]
    of_batch = [(pb.ItemStatus.Name(item.status), item.reason) for item in items]
    of_documents = {(pb.ItemStatus.Name(each.status), each.reason) for each in results}
    assert set(of_batch) == of_documents == {("SIGNED", ""), ("NOT_ATTEMPTED", "POOL_CLOSED")}
    assert {each.retry_after_s for each in results if each.status == pb.NOT_ATTEMPTED} == {1.0}
    assert len(results) == 12
    whole(brief)
    assert signed(brief) == 3 + sum(status == "SIGNED" for status, _ in of_batch) + sum(
        each.status == pb.SIGNED for each in results
    )
    shim_of(brief).clear()
    with Caller(brief) as portal:
        again = portal.sign(asking)
    assert statuses(again) == ["SIGNED"] * 60
    kept = [item.signature for item in items if item.signature]
    assert {item.signature for item in again.value.items} >= set(kept)


def test_f47_a_lane_that_hangs_in_the_drain(brief: Rig) -> None:
    """F47: who waits for it has his answer before the doors are shut: what is under C_Sign is INDETERMINATE."""
    with Caller(brief) as portal, ThreadPoolExecutor(1) as threads:
        for number in range(3):
            portal.sign(digests=digests(1, number))
        shim_of(brief).script(f"C_Sign {signed(brief) + 4} hang 60")
        batch = threads.submit(portal.sign, asking := request(digests=digests(300, 100)), timeout_s=60)
        until(lambda: signed(brief) == 7)
        brief.send_signal(signal.SIGTERM)
        items = batch.result().value.items
    wanted = [("SIGNED", "")] * 3 + [("INDETERMINATE", "TOKEN_TIMEOUT")] + [("NOT_ATTEMPTED", "POOL_CLOSED")] * 296
    assert [(pb.ItemStatus.Name(item.status), item.reason) for item in items] == wanted
    whole(brief)
    with Caller(brief) as portal:
        assert statuses_of(result(portal, asking.request_id))[:4] == ["SIGNED"] * 3 + ["INDETERMINATE"]


def test_a_daemon_without_people_is_started_once(daemon: Rig) -> None:
    """What forgets people's codes costs time, and nobody types any here."""
    assert daemon.process is not None
    assert not psutil.Process(daemon.process.pid).environ().keys() & {"GLIBC_TUNABLES", "PYTHONMALLOC"}


def test_f47_second_sigterm(daemon: Rig) -> None:
    """F47: a second SIGTERM ends the daemon within seconds, even with a token that hangs; no process is left."""
    everybody = processes(daemon)
    shim_of(daemon).script(f"C_Sign {signed(daemon) + 1} hang 60")
    with Caller(daemon) as portal:
        call = portal.signing.SignDigests.future(ask(), timeout=30)
        until(lambda: signed(daemon) >= 1)
        daemon.send_signal(signal.SIGTERM)
        until(lambda: portal.sign().reason == "DRAINING")
        assert not call.done()
        daemon.send_signal(signal.SIGTERM)
        began = time.monotonic()
        assert daemon.process is not None
        assert daemon.process.wait(10) == 0
        assert time.monotonic() - began < 4
        assert call.exception(5) is not None
    until(lambda: all(gone(process) for process in everybody), 1, "the end of every process")
    assert "a second signal: stopping now" in daemon.log.read_text()


def test_f51_killed_daemon(daemon: Rig) -> None:
    """
    F51: when the daemon is killed its lanes are gone within a second, also one that is in the middle of C_Sign; the next
    daemon takes over what is left in its state directory and in its socket's place.
    """
    lanes = [psutil.Process(pid) for pid in lane_pids(daemon)]
    everybody = processes(daemon)
    shim_of(daemon).script(f"C_Sign {signed(daemon) + 1} hang 60")
    with Caller(daemon) as portal:
        call = portal.signing.SignDigests.future(ask(), timeout=30)
        until(lambda: signed(daemon) >= 1)
        assert daemon.process is not None
        daemon.process.kill()
        daemon.process.wait(5)
        until(lambda: all(gone(lane) for lane in lanes), 1, "the end of the lanes")
        until(lambda: all(gone(process) for process in everybody), 10, "the end of every other process")
        assert call.code() == grpc.StatusCode.UNAVAILABLE
    left_over = daemon.directory / "operator.sock"
    assert left_over.is_socket()
    daemon.launch()
    daemon.wait_serving()
    profile = daemon.directory / "unix.toml"
    profile.write_text(f'server = "unix:{left_over}"\n')
    profile.chmod(0o644)
    done = daemon.command("tokens", "--json", "--profile", profile)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)[0]["state"] == "READY"
    with Caller(daemon) as portal:
        assert statuses(portal.sign()) == ["SIGNED"]


# ---- the start


def test_f52_second_daemon(rig: Rig) -> None:
    """F52: a second daemon on the same state says who has it, and ends with 75; the first does not notice."""
    assert rig.process is not None
    done = rig.command("serve", "--config", rig.config)
    assert done.returncode == 75
    assert done.stderr.splitlines()[-1].endswith(f"is used by the daemon with process id {rig.process.pid}")
    assert rig.health() == SERVING


def test_f52_two_daemons_on_one_pool(rig: Rig, operator: Caller) -> None:
    """
    F52: a second daemon with a state of its own on the same tokens refuses before it touches one of them, names the first,
    and ends with 75.
    """
    assert rig.process is not None
    text = rig.config.read_text().replace(f'state = "{rig.state}"', f'state = "{rig.directory}/second"')
    second = rig.directory / "second.toml"
    second.write_text(text.replace(f"127.0.0.1:{rig.port}", "127.0.0.1:0").replace(f":{rig.metrics_port}", ":0"))
    until(lambda: state(operator, "stick") == "LOCKED", 10)  # its own login is over
    logins = len(shim_of(rig).logins())
    done = rig.command("serve", "--config", second)
    assert done.returncode == 75, done.stderr
    said = done.stderr.splitlines()[-1]
    assert "token card" in said
    assert said.endswith(f"is used by the daemon with process id {rig.process.pid}")
    assert len(shim_of(rig).logins()) == logins
    assert rig.health() == SERVING


def test_f52_two_daemons_of_which_one_names_the_reader(rig: Rig) -> None:
    """F52: the same token, once with its reader and once without: the second daemon finds the first all the same."""
    assert rig.process is not None
    text = rig.config.read_text().replace(f'state = "{rig.state}"', f'state = "{rig.directory}/third"')
    text = text.replace(f"127.0.0.1:{rig.port}", "127.0.0.1:0").replace(f":{rig.metrics_port}", ":0")
    second = rig.directory / "third.toml"
    for label in ("card", "stick"):
        text = text.replace(f'label = "{label}"', f'label = "{label}"\nreader = "{label}s 00 00"')
    second.write_text(text)
    done = rig.command("serve", "--config", second)
    assert done.returncode == 75, done.stderr
    said = done.stderr.splitlines()[-1]
    assert "token card" in said
    assert said.endswith(f"is used by the daemon with process id {rig.process.pid}")


@pytest.mark.parametrize("setting", ["listener.address", "server.metrics"])
def test_an_address_in_use(setting: str) -> None:
    """It is free when the other process ends: exit code 75, so that systemd tries again, and one line of ours."""
    rig = card_rig("P-256")
    try:
        rig.prepare()
        port = rig.port if setting == "listener.address" else rig.metrics_port
        with socket.create_server(("127.0.0.1", port)):
            rig.launch()
            assert rig.process is not None
            assert rig.process.wait(30) == 75, rig.log.read_text()
        lines = [line for line in rig.log.read_text().splitlines() if " INFO " not in line]
        assert lines == [f"paraph serve: {setting}: the address 127.0.0.1:{port} is in use by another process"]
        rig.launch()
        rig.wait_serving()
    finally:
        rig.close()


def test_check(rig: Rig, paraph: Paraph) -> None:
    """`serve --check` reads what a start would read and starts nothing: 0, or 78 with all mistakes at once."""
    done = paraph("serve", "--check", "--config", rig.config)
    assert (done.code, done.out) == (0, f"{rig.config}: good\n")
    bad = rig.directory / "bad.toml"
    text = rig.config.read_text().replace('role = "submit"', 'role = "king"').replace("[trust]", "[trust]\nlove = 1")
    bad.write_text(text.replace("127.0.0.1:", "localhost:"))
    done = paraph("serve", "--check", "--config", bad)
    assert done.code == 78
    places = ("server.metrics:", "listener 1:", 'caller "portal": role:', "trust.love: unknown key")
    assert all(any(f"{bad}: {place}" in line for line in done.err.splitlines()) for place in places), done.err
    assert len(done.err.splitlines()) == len(places)


def test_check_looks_into_the_files(rig: Rig, paraph: Paraph) -> None:
    """`serve --check` also names every file that the configuration names and that is not what it should be."""
    bad = rig.directory / "bad-files.toml"
    text = rig.config.read_text().replace(str(rig.server_files[1]), str(rig.pki.root_file))
    text = text.replace(str(rig.pki.ca_file), "/nowhere/ca.pem").replace(str(rig.denied), "/nowhere/denied")
    bad.write_text(text)
    for words in ((), ("--json",)):
        done = paraph("serve", "--check", *words, "--config", bad)
        assert done.code == 78
        lines = done.json["mistakes"] if words else done.err.splitlines()
        places = ("trust.denied_certificates: /nowhere/denied", "listener.key:", "listener.client_ca: /nowhere/ca.pem")
        assert all(any(place in line for line in lines) for place in places), lines
        assert len(lines) == len(places)


# ---- tokens, through the operator's calls


def test_wrong_pin(rig: Rig, operator: Caller, portal: Caller) -> None:
    """
    With a wrong PIN the daemon serves its other tokens; that one is LOCKED, was tried once, and is tried again only when
    a person says so: with the PIN corrected and UnlockToken it signs.
    """
    until(lambda: state(operator, "stick") == "LOCKED", 5)
    tries = [call.pinlen for call in shim_of(rig).logins()]
    assert rig.health() == SERVING
    assert statuses(portal.sign()) == ["SIGNED"]
    assert portal.sign(rsa()).brief == ("FAILED_PRECONDITION", "PIN_LOCKED")
    credential = portal.signing.GetCredential(pb.GetCredentialRequest(credential="rsa-2048"), timeout=5)
    assert (credential.available, credential.unavailable_reason) == (False, "PIN_LOCKED")
    reload(rig)
    assert state(operator, "stick") == "LOCKED"
    assert [call.pinlen for call in shim_of(rig).logins()] == tries
    assert len(tries) == 2, "one login for each token"
    pin = rig.directory / "stick.pin"
    pin.chmod(0o600)
    pin.write_text("4321")
    assert state(operator, "stick") == "LOCKED", "a corrected file alone changes nothing"
    operator.operator.UnlockToken(op.UnlockTokenRequest(token="stick"), timeout=5)
    until(lambda: state(operator, "stick") == "READY", 10)
    assert statuses(portal.sign(rsa())) == ["SIGNED"]
    assert len(shim_of(rig).logins()) == 3
    again = said(lambda: operator.operator.UnlockToken(op.UnlockTokenRequest(token="stick"), timeout=5))
    assert again.brief == ("FAILED_PRECONDITION", "TOKEN_STATE")
    assert not {"9999", "4321", PIN} & set(rig.log.read_text().split()), "no PIN is in the log"


def test_list_drain_resume(operator: Caller, portal: Caller) -> None:
    """ListTokens tells what a token is; a drained one signs nothing until it is resumed, and its neighbour goes on."""
    until(lambda: state(operator, "stick") == "READY", 10)
    card = token(operator, "card")
    assert (card.name, card.kind, card.label, list(card.credentials)) == ("card", "smartcard", "card", ["p-256"])
    assert card.serial
    assert card.module
    assert [op.Lane.State.Name(lane.state) for lane in card.lanes] == ["IDLE"]
    assert card.lanes[0].pid > 0
    drained = operator.operator.DrainToken(op.DrainTokenRequest(token="card"), timeout=5)
    assert op.Token.State.Name(drained.state) == "DRAINED"
    refusal = portal.sign()
    assert refusal.brief == ("UNAVAILABLE", "TOKEN_DRAINED")
    assert statuses(portal.sign(rsa())) == ["SIGNED"]
    until(lambda: token(operator, "card").lanes[0].pid == 0, 5, "the end of its lane")
    again = said(lambda: operator.operator.DrainToken(op.DrainTokenRequest(token="card"), timeout=5))
    assert again.brief == ("FAILED_PRECONDITION", "TOKEN_STATE")
    operator.operator.ResumeToken(op.ResumeTokenRequest(token="card"), timeout=5)
    until(lambda: portal.sign().code == "OK", 10, "a signature of the resumed token")


def test_watch(operator: Caller, portal: Caller) -> None:
    """WatchTokens answers a list at once, and another after each change."""
    until(lambda: state(operator) == "READY", 10)
    watch = operator.operator.WatchTokens(op.WatchTokensRequest(), timeout=30)

    def sees(wanted: str) -> None:
        for answer in watch:
            if op.Token.State.Name(next(t.state for t in answer.tokens if t.name == "card")) == wanted:
                return

    sees("READY")
    operator.operator.DrainToken(op.DrainTokenRequest(token="card"), timeout=5)
    sees("DRAINED")
    operator.operator.ResumeToken(op.ResumeTokenRequest(token="card"), timeout=5)
    sees("READY")
    watch.cancel()
    assert statuses(portal.sign()) == ["SIGNED"]


def test_health_follows_the_tokens(rig: Rig, operator: Caller, portal: Caller) -> None:
    """Health is SERVING, for each service, while at least one token can sign."""
    stub = health_pb2_grpc.HealthStub(operator.channel)

    def everywhere(status: int) -> bool:
        names = ("", "signer.v1.Signing", "signer.v1.Operator")
        return all(stub.Check(health_pb2.HealthCheckRequest(service=n), timeout=5).status == status for n in names)

    assert everywhere(SERVING)
    unknown = said(lambda: stub.Check(health_pb2.HealthCheckRequest(service="signer.v1.Other"), timeout=5))
    assert unknown.code == "NOT_FOUND"
    operator.operator.DrainToken(op.DrainTokenRequest(token="card"), timeout=5)
    assert everywhere(SERVING)
    operator.operator.DrainToken(op.DrainTokenRequest(token="stick"), timeout=5)
    until(lambda: everywhere(NOT_SERVING), 2)
    for name in ("card", "stick"):
        operator.operator.ResumeToken(op.ResumeTokenRequest(token=name), timeout=5)
    until(lambda: everywhere(SERVING), 10)
    until(lambda: portal.sign().code == portal.sign(rsa()).code == "OK", 10)


def test_reflection(rig: Rig, operator: Caller) -> None:
    """Server reflection lists both services, so that generic clients can call them."""
    stub = reflection_pb2_grpc.ServerReflectionStub(operator.channel)
    asking = reflection_pb2.ServerReflectionRequest(list_services="")
    answer = next(stub.ServerReflectionInfo(iter([asking]), timeout=5))
    names = {service.name for service in answer.list_services_response.service}
    assert {"signer.v1.Signing", "signer.v1.Operator", "grpc.health.v1.Health"} <= names


def test_server_info(rig: Rig, operator: Caller) -> None:
    """GetServerInfo tells the limits that are in force, the configuration's hash, and who the caller is."""
    import hashlib

    info = operator.operator.GetServerInfo(op.GetServerInfoRequest(), timeout=5)
    assert info.caller == "operator"
    assert info.protocol == 1
    assert info.config_sha256 == hashlib.sha256(rig.config.read_bytes()).digest()
    told = {field.name: getattr(info.limits, field.name) for field in op.Limits.DESCRIPTOR.fields}
    names = {"stream_digests_unanswered_max": "STREAM_UNANSWERED_DIGESTS_MAX"}
    assert told == {name: getattr(limits, names.get(name, name.upper())) for name in told}


# ---- what dies


def test_lane_killed_under_load(rig: Rig, operator: Caller, portal: Caller) -> None:
    """
    Kill -9 of a lane: by the shim's log exactly the item under C_Sign is INDETERMINATE, what was finished is delivered,
    the rest is signed by the lane's successor, which is there within two seconds; nothing is signed twice.
    """
    before = signed(rig)
    (pid,) = [lane.pid for lane in token(operator, "card").lanes]
    shim_of(rig).script(f"C_Sign {before + 21} hang 60")
    batch = digests(100, 5_000)
    with ThreadPoolExecutor(1) as threads:
        call = threads.submit(portal.sign, digests=batch, timeout_s=20)
        until(lambda: signed(rig) == before + 21, 10, "the item that hangs")
        psutil.Process(pid).kill()
        began = time.monotonic()
        until(lambda: signed(rig) > before + 21, 5, "a signature of the next lane")
        assert time.monotonic() - began < 2
        answer = call.result()
    found = statuses(answer)
    assert found == ["SIGNED"] * 20 + ["INDETERMINATE"] + ["SIGNED"] * 79
    assert answer.value.items[20].reason == "MODULE_CRASH"
    assert not answer.value.items[20].signature
    calls = [call for call in shim_of(rig).log() if call.fn == "C_Sign" and call.n > before and not call.query]
    entered = [call.data for call in calls if call.ev == "enter"]
    assert sorted(entered) == sorted(item.hex() for item in batch), "each once"
    left = {call.n for call in calls if call.ev == "leave"}
    assert [call.n - before for call in calls if call.ev == "enter" and call.n not in left] == [21]
    assert token(operator, "card").lanes[0].losses >= 1


def test_module_that_hangs(rig: Rig, operator: Caller, portal: Caller) -> None:
    """
    A module that hangs for a minute: its caller has the reason by the deadline, the lane is gone a second later, and the
    other token signs all the while.
    """
    (pid,) = [lane.pid for lane in token(operator, "card").lanes]
    before = signed(rig)
    shim_of(rig).script(f"C_Sign {before + 1} hang 60")
    with ThreadPoolExecutor(1) as threads:
        began = time.monotonic()
        call = threads.submit(portal.sign, digests=[digest(6_000)], timeout_s=1.5)
        until(lambda: signed(rig) > before)
        others = 0
        while not call.done():
            assert statuses(portal.sign(rsa(digests=[digest(6_001)]))) == ["SIGNED"]
            others += 1
        took = time.monotonic() - began
    assert call.result().brief == ("DEADLINE_EXCEEDED", "TOKEN_TIMEOUT")
    assert took < 1.7
    assert others > 10
    until(lambda: gone(psutil.Process(pid)) if psutil.pid_exists(pid) else True, 1, "the end of the lane")
    until(lambda: portal.sign().code == "OK", 5, "the lane's successor")
