"""
The daemon: start-up, service, drain, stop. It wires the rooms together and holds what can be reloaded.

    SIGTERM, SIGINT   drain: NOT_SERVING at once, calls in work get 30 s, what waits still then is NOT_ATTEMPTED, lanes log
                      out; a second one ends it now
    SIGHUP            reload: callers, policy, TLS files, deny-list, credentials; a file with a mistake changes nothing but
                      the last two, because what takes away waits for nothing
"""

import asyncio
import contextlib
import logging
import resource
import signal
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

# Otherwise cryptography imports it at the first ECDSA signature that is verified: where no descriptor is left by then, the
# import fails, and that signature's answer with it.
import cryptography.hazmat.backends.openssl.backend  # noqa: F401
from grpc_health.v1 import health_pb2
from grpc_health.v1._async import HealthServicer

from pool import Key, Pool, TokenConfig, TokenView
from pool.reader import ReaderError, look
from pool.token import IN_USE, State
from signer import books, checkpoint_key, group, revocation, steady, subject
from signer import config as configs
from signer import credential as rows
from signer.approving import ApprovingService
from signer.assembly import Assembly
from signer.batch import Batches
from signer.chain import Kind
from signer.clock import Clock
from signer.config import Config, ConfigError, Trust
from signer.consent import Consent
from signer.consenting import ConsentService
from signer.credential import Credential
from signer.database import where
from signer.durable import put
from signer.exclusive import hold_state, hold_tokens
from signer.growth import Growth
from signer.handlers import Admission, Gatekeeper, build
from signer.kept import Kept
from signer.limits import DESCRIPTORS_WANTED, DRAIN_ANSWER_S, DRAIN_GIVE_BACK_S, DRAIN_S
from signer.listener import Door, TlsFiles, check_free, connections_max
from signer.memory import keep_trimmed
from signer.metrics import Metrics
from signer.operator import OperatorService
from signer.others import Others
from signer.peer import CertificatePeer, Peers, SocketPeer
from signer.people import derived, nobody_is_served, served
from signer.policy import Policy, read_denied
from signer.refused import Refused
from signer.register import Register
from signer.resets import Interceptor, Resets
from signer.revocation import Revocations
from signer.service import SigningService
from signer.spool import Spool
from signer.steady import Steady
from signer.still import Still
from signer.store import open_store, reading
from signer.v1 import operator_pb2, signing_pb2

log = logging.getLogger("signer")

METRICS_S = 5.0  # the loop is never that late; if it is, the scrape fails and says so
HEALTH_PAUSE_S = 0.05  # a pool under load changes a hundred times a second, its health hardly ever
LEDGER_LOOK_S = 0.1  # health says within a second that the disk fails
SERVICES = ("signer.v1.Signing", "signer.v1.Operator")
CLOSE_S = 1.0  # for the last answers, and for streams of others' services (health) that nobody ends
# What a reload cannot change: lanes and sockets were made from it.
_FIXED = ("server", "token", "listener", "ledger", "people")


class Daemon:
    def __init__(self, path: Path, config: Config) -> None:
        self._path = path
        self._config = config
        self._policy = Policy.of(config)
        self._clock = Clock()
        self._consent: Consent | None = None  # where the configuration serves people
        self._credentials: Mapping[str, Credential] = {}
        self._suspended: frozenset[str] = frozenset()  # subjects; read when work that goes on is looked at
        self._batches: Batches | None = None
        self._admission = Admission()
        self._doors: list[Door] = []
        self._health = HealthServicer()
        self._stopping = asyncio.Event()
        self._reloading_lock = asyncio.Lock()
        self._ready = False  # whether a token can sign
        self._status: object = None  # what health says

    async def run(self, ready: asyncio.Event | None = None) -> None:
        """From start-up to the end; raises `ConfigError`, `StoreError`, `AlreadyRunning`, `AddressInUse` before anything is served."""
        state = self._config.server.state
        async with AsyncExitStack() as stack:
            stack.callback(hold_state(state))
            stack.callback(hold_tokens(self._config.token))
            self._descriptors = _descriptors()
            self._engine = await asyncio.to_thread(open_store, where(self._config))
            stack.callback(self._engine.dispose)
            self._steady = Steady(self._clock, state / steady.FILE)
            (state / rows.IN_FORCE).unlink(missing_ok=True)  # before they are read: it tells of an earlier run
            self._credentials = rows.read(self._engine)
            await self._say_in_force(self._credentials)
            self._checkpoint_key = checkpoint_key.of(self._config.ledger, lambda: self._pool)
            checkpoint_key.check_apart(self._checkpoint_key.spki, self._credentials.values())
            group.check(self._config.group, self._credentials)
            self._books = await stack.enter_async_context(
                books.opened(self._config.ledger, where(self._config), state, self._clock, self._checkpoint_key.spki)
            )
            if self._books.ended is not None:
                self._steady.know(self._books.ended)
            await stack.enter_async_context(steady.kept(self._steady))
            self._revocations = await stack.enter_async_context(
                Revocations(revocation.issuers(self._config.trust), self._clock, directory=state / "crl")
            )
            tokens = [token.for_pool() for token in self._config.token]
            await self._check_readers(tokens)
            pool = Pool(tokens, state=state / "pool", keys=self._keys(self._credentials))
            self._pool = await stack.enter_async_context(pool)
            self._admission.starts.at_work = pool.is_at_work
            self._checkpoints = await stack.enter_async_context(self._books.checkpointed(self._checkpoint_key))
            metrics = self._measured()
            stack.callback(metrics.close)
            if self._config.server.metrics is not None:
                check_free("server.metrics", self._config.server.metrics)
                metrics.serve(self._config.server.metrics, self._descriptors)
            assembly = await stack.enter_async_context(Assembly(self._config.server.assembly_processes))
            await self._open_doors(stack, metrics, assembly)
            self._on_signals()
            for watch in (self._watch_tokens(), self._watch_ledger()):
                stack.callback(asyncio.create_task(watch, name="health").cancel)
            trimmer = asyncio.create_task(keep_trimmed(), name="memory")
            stack.callback(trimmer.cancel)
            self._announce(metrics)
            if ready is not None:
                ready.set()
            await self._stopping.wait()
            await self._drain()

    async def _check_readers(self, tokens: Iterable[TokenConfig]) -> None:
        """Raises `ConfigError` where PC/SC refuses us: only a person changes that. One that is down may come up."""

        async def denied(token: TokenConfig) -> str:
            try:
                await look(token)
            except ReaderError as error:
                if error.why == "denied":
                    return f"token {token.name}: {error}"
            return ""

        said = await asyncio.gather(*(denied(token) for token in tokens if token.reader is not None))
        mistakes = [mistake for mistake in said if mistake]
        if mistakes:
            raise ConfigError(self._path, mistakes)

    def _keys(self, credentials: Mapping[str, Credential]) -> list[Key]:
        """What the pool signs with: the credentials' keys, and that of checkpoints if a token has it."""
        own = self._checkpoint_key.on_token
        return [*{credential.key: None for credential in credentials.values()}, *([own] if own is not None else [])]

    def _measured(self) -> Metrics:
        ledger, checkpoints = self._books.ledger, self._checkpoints
        metrics = Metrics(
            self._snapshot_from_outside(asyncio.get_running_loop()),
            lambda: self._admission.calls,
            lambda: checkpoints.age_s,
            lambda: checkpoints.queued,
            self._revocations,
        )
        metrics.gauge(
            "paraph_ledger_rows", "Rows of the ledger written since the start.", lambda: ledger.writer.written
        )
        metrics.gauge(
            "paraph_ledger_stopped",
            "1 while nothing is signed because the ledger cannot be written or anchored.",
            lambda: float(bool(ledger.trouble)),
        )
        metrics.gauge(
            "paraph_clock_step_seconds",
            "How far the system's clock was set since an operator confirmed it.",
            lambda: self._steady.jump_s,
        )
        path = where(self._config)
        if isinstance(path, Path):
            growth = Growth(path)
            metrics.gauge(
                "paraph_ledger_days_to_full",
                "Until the disk is full, as fast as the ledger has grown; 0 where it is, +Inf while that is not known.",
                lambda: growth.sample(time.monotonic()),
            )
        return metrics

    def _snapshot_from_outside(self, loop: asyncio.AbstractEventLoop) -> Callable[[], list[TokenView]]:
        """The pool belongs to the loop; /metrics is answered on another thread, and asks the loop."""

        async def snapshot() -> list[TokenView]:
            return self._pool.snapshot()

        return lambda: asyncio.run_coroutine_threadsafe(snapshot(), loop).result(METRICS_S)

    async def _open_doors(self, stack: AsyncExitStack, metrics: Metrics, assembly: Assembly) -> None:
        spool = Spool(self._config.server.state / "spool", metrics.spool_bytes.set, self._descriptors)
        ledger = self._books.ledger
        people = self._config.people
        if people is not None:
            serving = await stack.enter_async_context(served(people, self._engine, ledger, self._refresh, self._steady))
            self._consent, outbox = serving.consent, serving.outbox
            metrics.gauge("paraph_messages_queued", "Messages to people that wait.", lambda: outbox.queued)
            metrics.gauge("paraph_message_age_seconds", "How long the oldest of them has waited.", lambda: outbox.age_s)
            metrics.gauge("paraph_messages_sent", "Messages to people sent since the start.", lambda: outbox.delivered)
            metrics.gauge("paraph_messages_given_up", "Those that could not be sent.", lambda: outbox.given_up)
        consent = self._consent
        redeem = consent.redeem if consent is not None else nobody_is_served
        still = Still(
            lambda: self._policy, lambda: self._credentials, lambda: self._suspended, self._revocations, self._steady
        )  # fmt: skip
        batches = self._batches = Batches(
            self._pool, ledger, self._clock, redeem, self._revocations, lambda: self._policy.roots, still.check,
            self._steady,
        )  # fmt: skip
        self._revocations.tell(batches.revoke)
        kept = Kept(self._config.server.state / "kept", derived(self._config.ledger.data_key(), "kept documents"))
        approving = ApprovingService(
            self._pool, self._engine, ledger, batches, consent, spool, kept, assembly, lambda: self._policy,
            lambda: self._credentials, self._clock, self._steady,
        )  # fmt: skip
        if consent is not None:
            await approving.erase_left_over()
            stack.callback(asyncio.create_task(approving.keep_erasing(), name="kept documents").cancel)
        consenting = ConsentService(
            consent, batches, approving, lambda: self._policy, lambda: self._credentials, self._clock
        )
        reserved = self._checkpoint_key.spki
        register = Register(self._engine, ledger, lambda: self._credentials, self._refresh, self._clock, reserved)
        signing = SigningService(
            self._pool,
            batches,
            ledger,
            assembly,
            spool,
            lambda: self._policy,
            lambda: self._credentials,
            self._clock,
            metrics,
        )
        operator = OperatorService(
            self._pool, lambda: self._config, lambda: self._credentials, self.reload, register, consent, ledger,
            self._clock, self._steady,
        )  # fmt: skip
        resets = Resets(self._admission, lambda caller: metrics.resets.labels(caller).inc())
        others, refused = Others(self._admission.starts), Refused()
        stack.callback(refused.tell)
        connections = connections_max(self._descriptors, len(self._config.listener))
        for listener in self._config.listener:
            peers: Peers = CertificatePeer(lambda: self._policy, self._steady)
            if listener.caller is not None:
                peers = SocketPeer(listener.caller, lambda: self._policy)
            keeper = Gatekeeper(peers, lambda: self._policy, self._clock, self._admission, metrics, refused)
            handlers = (
                build(
                    signing_pb2.DESCRIPTOR.services_by_name["Signing"],
                    signing_pb2,
                    keeper,
                    signing,
                    consenting,
                    approving,
                ),
                build(operator_pb2.DESCRIPTOR.services_by_name["Operator"], operator_pb2, keeper, operator),
            )
            door = Door(listener, handlers, connections, [Interceptor(resets, peers, others)])
            door.add_health(self._health, SERVICES)
            await door.open()
            stack.push_async_callback(door.close, 0)
            self._doors.append(door)

    def _announce(self, metrics: Metrics) -> None:
        for door in self._doors:
            listener = door.listener
            if listener.socket is not None:
                log.info("listening on unix:%s for %s", listener.socket, listener.caller)
            else:
                host = str(listener.address).rpartition(":")[0]
                log.info("listening on %s:%d", host, door.port)
        if metrics.port:
            log.info("metrics on port %d", metrics.port)

    def _on_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop_signal)
        loop.add_signal_handler(signal.SIGHUP, self._reload_signal)

    def _stop_signal(self) -> None:
        if self._stopping.is_set():
            log.warning("a second signal: stopping now")
            for door in self._doors:
                asyncio.ensure_future(door.close(0))  # noqa: RUF006 -- the drain waits for the doors
        self._stopping.set()

    def _reload_signal(self) -> None:
        self._reloading = asyncio.create_task(self._reload_and_log())

    async def _reload_and_log(self) -> None:
        try:
            await self.reload("SIGHUP")
        except ConfigError as error:
            log.error(  # noqa: TRY400 -- no fault of ours
                "reload refused, the old configuration stays, but for what takes away: %d certificates are denied, and %d "
                "credentials are in force as they are stored: %s",
                len(self._policy.denied),
                len(self._credentials),
                error,
            )
        except Exception:
            log.exception("reload failed, the old configuration stays, but for who is denied besides")

    async def reload(self, who: str) -> None:
        """
        Read everything first, then put it in place in one step; raises `ConfigError` and changes nothing, except for
        credentials and who is denied besides: a revocation does not wait for the rest of the file.
        """
        async with self._reloading_lock:  # of two that come at once, the later file wins
            await self._reload()
        self._books.ledger.note_soon(
            Kind.REGISTER, {"config": self._config.sha256.hex(), "what": "the configuration was read again", "who": who}
        )

    async def _reload(self) -> None:
        try:
            new = await asyncio.to_thread(configs.load, self._path)
        except ConfigError as error:
            mistakes, _ = await self._take_away(self._config.trust)
            raise ConfigError(error.path, [*error.mistakes, *mistakes]) from None
        _, credentials = await self._take_away(new.trust)
        fixed = [name for name in _FIXED if getattr(new, name) != getattr(self._config, name)]
        if new.trust.crl != self._config.trust.crl:
            fixed.append("trust.crl")
        if fixed:
            raise ConfigError(self._path, [f"{', '.join(fixed)}: changed, and needs a restart"])
        policy = Policy.of(new)
        tls = [TlsFiles.read(door.listener) if door.listener.address is not None else None for door in self._doors]
        checkpoint_key.check_apart(self._checkpoint_key.spki, credentials.values())
        group.check(new.group, credentials)
        self._config, self._policy = new, policy
        self._stop_what_may_not_go_on()
        for door, files in zip(self._doors, tls, strict=True):
            door.use(files)
        log.info("reloaded: %d callers, %d credentials", len(new.caller), len(credentials))
        if not self._steady.is_safe:
            log.warning("the system's clock was set by %+.0f s, %s", self._steady.jump_s, steady.ADVICE)

    async def _take_away(self, trust: Trust) -> tuple[list[str], dict[str, Credential]]:
        """
        Put in force who is denied besides (only a whole file takes anybody off the list), and credentials as they are
        stored. Answers the deny-list's mistakes, and the credentials.
        """
        mistakes: list[str] = []
        denied = read_denied(trust.denied_certificates, mistakes)
        self._policy = replace(self._policy, denied=self._policy.denied | denied)
        self._stop_what_may_not_go_on()  # before the store is asked, which may not answer
        return mistakes, await self._use_stored()

    async def _use_stored(self) -> dict[str, Credential]:
        """
        Answers all that are stored. One with the key of checkpoints, that was put into the store past us, is not used, and
        holds up none of the others.
        """
        found, spki = await self._read_credentials(), self._checkpoint_key.spki
        self._suspended = await asyncio.to_thread(self._read_suspended)
        self._use({name: credential for name, credential in found.items() if credential.key.spki != spki})
        self._stop_what_may_not_go_on()
        await self._say_in_force(found)
        return found

    def _read_suspended(self) -> frozenset[str]:
        with reading(self._engine) as connection:
            return subject.suspended(connection)

    def _stop_what_may_not_go_on(self) -> None:
        if self._batches is not None:
            self._batches.revoke()

    async def _say_in_force(self, credentials: Mapping[str, Credential]) -> None:
        """To commands beside the daemon, which wait for it (`rows.IN_FORCE`)."""
        try:
            path = self._config.server.state / rows.IN_FORCE
            await asyncio.to_thread(lambda: put(path, rows.fingerprint(credentials)))
        except OSError as error:
            log.warning("`paraph credential` is not told what is in force: %s", error)

    async def _read_credentials(self) -> dict[str, Credential]:
        """As they are stored now. One that did not change keeps its templates, which took milliseconds to make."""
        old, stored = self._credentials, await asyncio.to_thread(rows.read, self._engine)
        return {name: old[name] if old.get(name) == row else row for name, row in stored.items()}

    def _use(self, credentials: Mapping[str, Credential]) -> None:
        before, keys = self._keys(self._credentials), self._keys(credentials)
        self._credentials = credentials
        if set(keys) != set(before):
            self._pool.set_keys(keys)

    async def _refresh(self) -> None:
        """A credential or a person was changed, which is in force at once."""
        async with self._reloading_lock:
            await self._use_stored()

    async def _watch_tokens(self) -> None:
        async for ready in self._pool.changes():
            self._ready = ready and self._callers_have_one()
            await self._set_health()
            await asyncio.sleep(HEALTH_PAUSE_S)

    def _callers_have_one(self) -> bool:
        """Whether a token signs for callers: the one that has the key of checkpoints alone does not."""
        own = self._checkpoint_key.on_token
        if own is None:
            return True
        views = self._pool.snapshot()
        ready = any(view.state is State.READY and set(view.keys) - {own.ref} for view in views)
        persons = (view for view in views if view.personal and view.state in {State.OPEN} | IN_USE)
        return ready or not all(view.is_starting for view in persons)

    async def _watch_ledger(self) -> None:
        """A disk that hangs tells nobody: it is looked at."""
        while True:
            await self._set_health()
            await asyncio.sleep(LEDGER_LOOK_S)

    async def _set_health(self) -> None:
        """SERVING while at least one token can sign and the ledger can be written."""
        able = self._ready and not self._stopping.is_set() and not self._books.ledger.trouble
        new = health_pb2.HealthCheckResponse.SERVING if able else health_pb2.HealthCheckResponse.NOT_SERVING
        if new != self._status:
            self._status = new
            for service in ("", *SERVICES):
                await self._health.set(service, new)

    async def _drain(self) -> None:
        """
        New calls are refused, those in work get their time; a little before it is over they are told what became of each
        item, so that no call ends without its answers. Then everything is closed in the order it was opened.
        """
        log.info("stopping: %d calls in work get %g s", self._admission.calls, DRAIN_S)
        await self._health.enter_graceful_shutdown()
        own = self._checkpoint_key.on_token  # the last checkpoint is still signed
        with contextlib.suppress(TimeoutError), contextlib.ExitStack() as timers:
            later = asyncio.get_running_loop().call_later
            timers.callback(later(DRAIN_S - DRAIN_GIVE_BACK_S, self._pool.turn_away, own.ref if own else "").cancel)
            timers.callback(later(DRAIN_S - DRAIN_ANSWER_S, self._pool.answer_all).cancel)
            async with asyncio.timeout(DRAIN_S):  # the doors stay open, so that who calls now is told why not
                await self._admission.drain()
        await asyncio.gather(*(door.close(CLOSE_S) for door in self._doors))
        log.info("stopped")


def _descriptors() -> int:
    """How many descriptors this process may have; what it inherits is often 1 024, and the system's own limit higher."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    may = DESCRIPTORS_WANTED if hard == resource.RLIM_INFINITY else min(hard, DESCRIPTORS_WANTED)
    if soft == resource.RLIM_INFINITY:
        return may
    if soft < may:
        resource.setrlimit(resource.RLIMIT_NOFILE, (may, hard))
    if max(soft, may) < DESCRIPTORS_WANTED:
        log.warning("only %d descriptors (LimitNOFILE); %d are wanted", max(soft, may), DESCRIPTORS_WANTED)
    return max(soft, may)
