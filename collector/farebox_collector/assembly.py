"""Build all parts of the collector, start them in order and stop them in reverse."""

import asyncio
import contextlib
import logging
import signal
import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import grpc.aio
from prometheus_client import CollectorRegistry, disable_created_metrics

from farebox_collector.admission.descriptors import connections_of_port
from farebox_collector.admission.rates import Rates
from farebox_collector.background import session_watch
from farebox_collector.background.periodic import PeriodicJob, repeat
from farebox_collector.background.posting_index_job import PostingIndexJob
from farebox_collector.background.session_watch import SessionWatch
from farebox_collector.background.settling import Settling
from farebox_collector.background.upkeep import Upkeep
from farebox_collector.background.webhook_sender import WebhookSender
from farebox_collector.cache.keyring import KeyRing
from farebox_collector.cache.tariffs import Tariffs
from farebox_collector.intake.gc_tuning import tune_gc
from farebox_collector.intake.reader import RequestReader
from farebox_collector.intake.reader_worker import ReaderWorker
from farebox_collector.ledger.access.keys import any_key, create_key
from farebox_collector.ledger.access.refusals import Refusals
from farebox_collector.ledger.access.sessions import Lifetime
from farebox_collector.ledger.access.stored_secrets import seal_everything
from farebox_collector.ledger.access.tenants import ensure_default_tenant
from farebox_collector.ledger.privacy.pseudonym_key import require_pseudonym_key
from farebox_collector.ledger.storage.connect import open_database
from farebox_collector.ledger.storage.database import Database
from farebox_collector.ledger.storage.migrate import has_table, migrate
from farebox_collector.ledger.tariffs.prices import BookChange, book_edition, import_prices
from farebox_collector.ledger.usage.folding import Folder
from farebox_collector.ledger.usage.running_totals import TotalLabels
from farebox_collector.metrics import endpoint
from farebox_collector.metrics.exporter import LedgerCollector
from farebox_collector.metrics.meters import Meters
from farebox_collector.model.credentials import ALL_SCOPES, Scope
from farebox_collector.model.pseudonyms import use_pseudonyms
from farebox_collector.model.records import DEFAULT_TENANT_ID
from farebox_collector.payments.automatic_topups import AutomaticTopups
from farebox_collector.payments.desk import Account, PaymentDesk
from farebox_collector.pipeline import Pipeline
from farebox_collector.pricing.catalogue import bundled_catalogues
from farebox_collector.receivers import grpc as grpc_receiver
from farebox_collector.receivers import http as http_receiver
from farebox_collector.receivers.call_admission import CallAdmission
from farebox_collector.receivers.http_ports import STOP_SECONDS, CannotListen, http_port
from farebox_collector.receivers.intake import Intake
from farebox_collector.settings import CONFIG_FILE, Settings, is_loopback
from farebox_collector.surfaces.api import application as api
from farebox_collector.surfaces.api.callers import Authentication
from farebox_collector.surfaces.api.context import Context
from farebox_collector.surfaces.api.headers import SafeHeaders
from farebox_collector.surfaces.console.routes import console_routes
from farebox_collector.surfaces.hold_desk import HoldDesk
from farebox_collector.surfaces.login_desk import LoginDesk

_logger = logging.getLogger(__name__)

_BODY_SECONDS = 30.0
"""Longest time for a request body to arrive at the API."""

_PORTS = 4
_ADMISSION_SECONDS = 0.5
_FOLD_SECONDS = 0.5
_OUTBOX_SECONDS = 1
_INDEXING_SECONDS = 1
_REFUSALS_SECONDS = 1

Clock = Callable[[], int]
Progress = Callable[[int, int], None]


class Listening(NamedTuple):
    """The bound ports. They differ from the settings where a setting is 0."""

    grpc: int
    otlp_http: int
    api: int
    metrics: int


def no_progress(done: int, total: int) -> None:
    """Ignore progress."""


def open_books(settings: Settings, clock: Clock = time.time_ns, progress: Progress = no_progress) -> Database:
    """Open the books for writing: migrate them, ensure the default tenant, and import prices at the first start.

    With a secrets key, encrypt secrets that were stored in plain text. Raises DatabaseInUse if another process writes
    the books, WrongSecretsKey if a stored secret cannot be decrypted, and WrongPseudonymKey if the books do not match
    the pseudonym key.
    """
    pseudonyms = settings.pseudonyms()
    database = open_database(settings.database_url, box=settings.secret_box())
    try:
        with database.alone():
            migrate(database)
            with database.transaction() as connection:
                require_pseudonym_key(connection, pseudonyms, writable=True)
                use_pseudonyms(pseudonyms)
                ensure_default_tenant(connection, clock())
                if settings.bootstrap_key is not None and not any_key(connection):
                    token = settings.bootstrap_key.get_secret_value()
                    create_key(connection, DEFAULT_TENANT_ID, "bootstrap", ALL_SCOPES, clock(), token=token)
                seal_everything(connection, clock())
            database.fold_with(Folder(TotalLabels()))
            with database.transaction() as connection:
                empty = not book_edition(connection)
            if empty:
                change = import_catalogue(database, clock, progress)
                _logger.info("imported %d price versions of the bundled catalogue", change.added)
    except BaseException:
        database.close()
        raise
    return database


def import_catalogue(database: Database, clock: Clock = time.time_ns, progress: Progress = no_progress) -> BookChange:
    """Update the price book to the installed genai-prices and the bundled corrections."""
    catalogues = bundled_catalogues()
    now_ns = clock()
    with database.transaction() as connection:
        changes = [
            import_prices(connection, catalogue.prices, catalogue.models, now_ns, now_ns, progress)
            for catalogue in catalogues
        ]
    return BookChange(sum(change.added for change in changes), sum(change.closed for change in changes))


async def serve(settings: Settings, on_ready: Callable[[Listening], None], clock: Clock = time.time_ns) -> None:
    """Run the collector until SIGTERM or SIGINT, then drain: report not ready, accept no more, finish requests in
    progress, close."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await asyncio.to_thread(_require_keys, settings)
    with contextlib.closing(await asyncio.to_thread(open_books, settings, clock)) as database:
        warn_of_open_files(settings, database)
        if not settings.secret_box().has_key:
            _logger.warning(
                "secrets of links and webhooks are stored in plain text: set FAREBOX_SECRETS_KEY to a key from"
                " `farebox secrets generate`"
            )
        _logger.info("opened the books", extra={"kind": type(database).__name__, "sqlite": sqlite3.sqlite_version})
        async with _running(settings, database, clock, stop) as listening:
            tune_gc()
            on_ready(listening)
            await stop.wait()
            _logger.info("draining")
    _logger.info("stopped")


def _require_keys(settings: Settings) -> None:
    """Raise CannotListen for an address that other machines can reach while there is no key; warn of plain text there.

    Checks before the books are created, so that a refused start leaves no files.
    """
    reachable = {name: address for name, address in settings.addresses.items() if not is_loopback(address)}
    if not reachable:
        return
    if settings.bootstrap_key is None and not _has_keys(settings.database_url):
        name, address = next(iter(reachable.items()))
        raise CannotListen(
            f"{name}: refusing to listen on {address}: there are no API keys yet, so any client that reaches the port"
            " could read and write the books; create a key with `farebox keys create`, or set FAREBOX_BOOTSTRAP_KEY"
        )
    if settings.tls_certificate is None:
        _logger.warning(
            "keys and usage are sent in plain text: set FAREBOX_TLS_CERTIFICATE, or terminate TLS in a proxy"
        )


def warn_of_open_files(settings: Settings, database: Database) -> None:
    """Warn of files with secrets or books that other users of this machine can read."""
    files = database.files()
    with_secrets = (settings.tls_key, settings.secrets_key_file, Path(CONFIG_FILE))
    files += [path for path in with_secrets if path is not None and path.exists()]
    for path in files:
        if path.stat().st_mode & 0o077:
            _logger.warning("other users of this machine can read %s; run: chmod 600 %s", path, path)


def _has_keys(database_url: str) -> bool:
    try:
        database = open_database(database_url, writable=False)
    except FileNotFoundError:
        return False
    # A snapshot: after a crash batches may wait for the fold that this start brings.
    with contextlib.closing(database), database.snapshot() as connection:
        return has_table(connection, "api_keys") and any_key(connection)


class _Parts(NamedTuple):
    """Objects that the ports of one collector share."""

    registry: CollectorRegistry
    meters: Meters
    tariffs: Tariffs
    pipeline: Pipeline
    keyring: KeyRing
    rates: Rates
    refusals: Refusals
    intake: Intake


def _parts(settings: Settings, database: Database, clock: Clock) -> _Parts:
    disable_created_metrics()  # type: ignore[no-untyped-call]
    registry = CollectorRegistry()
    meters = Meters(registry, settings.queue_max_bytes)
    registry.register(LedgerCollector(database, meters.exemplars, clock))
    tariffs = Tariffs(database, clock, settings.charge_exposed)
    # The reading process always uses the system clock.
    worker = ReaderWorker(settings) if settings.reading_process and clock is time.time_ns else None
    pipeline = Pipeline(settings, database, RequestReader(settings, tariffs), meters, clock, worker)
    keyring, rates, refusals = KeyRing(database, clock), Rates(settings), Refusals(database, clock)
    intake = Intake(pipeline, keyring, meters, rates, refusals)
    return _Parts(registry, meters, tariffs, pipeline, keyring, rates, refusals, intake)


@asynccontextmanager
async def _running(
    settings: Settings, database: Database, clock: Clock, stop: asyncio.Event
) -> AsyncIterator[Listening]:
    """Listen on all ports and run the periodic jobs. Stop in reverse order: the API and metrics show the drain."""
    parts = _parts(settings, database, clock)
    started = False

    def ready() -> bool:
        return started and not stop.is_set()

    async with contextlib.AsyncExitStack() as stack:
        most = connections_of_port(settings.max_connections, _PORTS)
        call_admission = CallAdmission(most, min(settings.max_connections_per_peer, most))
        grpc_server = _bound_grpc(parts.intake, call_admission, settings, most)

        async def port(application: Any, address: str, body_seconds: float = _BODY_SECONDS) -> int:
            return await stack.enter_async_context(http_port(application, address, settings, most, body_seconds))

        metrics = _metrics(parts.registry, parts.keyring, parts.meters, settings)
        metrics_port = await port(metrics, settings.metrics_address)
        holds = HoldDesk(database, clock, strict=settings.strict_wallets)
        stack.push_async_callback(asyncio.to_thread, holds.close)
        payments = PaymentDesk(database, clock, _stripe_account(settings))
        stack.push_async_callback(asyncio.to_thread, parts.refusals.write, everything=True)
        context = _context(settings, database, clock, parts, ready, holds, payments)
        api_port = await port(api.application(context, console_routes(context, settings)), settings.api_address)
        stack.push_async_callback(parts.pipeline.close)
        otlp_http = http_receiver.application(parts.intake, settings.max_request_bytes, settings.request_seconds)
        # The receiver cuts slow requests off earlier, with an answer that asks the client to retry.
        otlp_http_port = await port(otlp_http, settings.otlp_http_address, settings.request_seconds + 5)
        await grpc_server.start()
        _work_in_background(stack, settings, database, clock, parts, payments, call_admission)
        # Accepted requests are answered by then: open calls have not begun, or have lost their client.
        stack.push_async_callback(grpc_server.stop, STOP_SECONDS)
        stack.push_async_callback(parts.pipeline.settle)
        started = True
        yield Listening(call_admission.port, otlp_http_port, api_port, metrics_port)


def _bound_grpc(intake: Intake, call_admission: CallAdmission, settings: Settings, most: int) -> grpc.aio.Server:
    """Bind a gRPC server to its port without starting it. Raises CannotListen."""
    service = grpc_receiver.OtlpServices(intake, call_admission, settings)
    grpc_server = grpc_receiver.server(service, settings.max_request_bytes, most)
    try:
        call_admission.port = _open_grpc(grpc_server, settings)
    except RuntimeError as error:
        raise CannotListen(
            f"cannot listen on {settings.grpc_address}: the port may be in use; set FAREBOX_GRPC_ADDRESS"
        ) from error
    return grpc_server


def _context(
    settings: Settings,
    database: Database,
    clock: Clock,
    parts: _Parts,
    ready: Callable[[], bool],
    holds: HoldDesk,
    payments: PaymentDesk,
) -> Context:
    return Context(
        database,
        clock,
        ready,
        parts.keyring,
        parts.meters,
        holds,
        payments,
        parts.refusals,
        LoginDesk(database, parts.refusals, _lifetime(settings), clock, parts.meters),
        public_url=settings.public_url.rstrip("/"),
        charge_exposed=settings.charge_exposed,
        strict=settings.strict_wallets,
        topup_return_url=settings.topup_return_url,
        topup_url=settings.topup_url,
        link_max_days=settings.link_max_days,
        rates=parts.rates,
        private_hosts=settings.webhook_private_hosts,
    )


def _work_in_background(
    stack: contextlib.AsyncExitStack,
    settings: Settings,
    database: Database,
    clock: Clock,
    parts: _Parts,
    payments: PaymentDesk,
    call_admission: CallAdmission,
) -> None:
    """Start every periodic job; the stack ends them."""
    upkeep = Upkeep(settings, database, clock, parts.meters.lots_set_aside, parts.meters.long_actions)
    indexing = PostingIndexJob(database, clock)
    sessions = SessionWatch(database, clock, parts.meters.agent_sessions)
    sender = WebhookSender(database, settings.webhook_private_hosts, clock)
    for job in (
        PeriodicJob("upkeep", settings.audit_seconds, upkeep.round),
        PeriodicJob("indexing", _INDEXING_SECONDS, indexing.round),
        PeriodicJob("fold", _FOLD_SECONDS / 2, parts.pipeline.fold_in_turns),
        PeriodicJob("sessions", session_watch.PAUSE_S, sessions.round),
        PeriodicJob("keys", settings.audit_seconds, parts.keyring.note_use),
        PeriodicJob("topups", settings.topup_seconds, AutomaticTopups(payments).round),
        PeriodicJob("settling", settings.settle_seconds, Settling(settings, database, parts.tariffs, clock).round),
        PeriodicJob("refusals", _REFUSALS_SECONDS, parts.refusals.write),
        PeriodicJob("webhooks", _OUTBOX_SECONDS, sender.round),
        PeriodicJob("doors", _ADMISSION_SECONDS, call_admission.round),
    ):
        stack.push_async_callback(_cancelled, asyncio.create_task(repeat(job)))
    stack.callback(sender.stop)
    stack.callback(upkeep.stop)
    stack.callback(indexing.stop)


def _lifetime(settings: Settings) -> Lifetime:
    return Lifetime(int(settings.session_idle_minutes * 60 * 10**9), int(settings.session_hours * 3600 * 10**9))


def _stripe_account(settings: Settings) -> Account | None:
    if settings.stripe_api_key is None or settings.stripe_webhook_secret is None:
        return None
    return Account(settings.stripe_api_key, settings.stripe_webhook_secret, settings.stripe_api_base)


def _open_grpc(server: grpc.aio.Server, settings: Settings) -> int:
    if settings.tls_certificate is None or settings.tls_key is None:
        return int(server.add_insecure_port(settings.grpc_address))
    credentials = grpc_receiver.server_credentials(settings.tls_certificate, settings.tls_key, settings.tls_client_ca)
    return int(server.add_secure_port(settings.grpc_address, credentials))


def _metrics(registry: CollectorRegistry, keyring: KeyRing, meters: Meters, settings: Settings) -> Any:
    """The metrics application. It requires a key where other machines reach it: metrics show revenue and costs."""
    app = SafeHeaders(endpoint.application(registry))
    if is_loopback(settings.metrics_address) or settings.metrics_without_key:
        return app
    return Authentication(app, keyring, meters, "metrics", "/", scope=Scope.READ)


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
