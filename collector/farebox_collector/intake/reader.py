"""Read requests: decode spans, apply dialects and price calls by the settings and the tariffs in force."""

from collections.abc import Callable, Iterable, Sequence
from enum import StrEnum
from itertools import islice
from typing import NamedTuple

from farebox_collector import dialects
from farebox_collector.cache.tariffs import Tariffs
from farebox_collector.dialects import agent_metrics
from farebox_collector.dialects.agent_metrics import MeterReading
from farebox_collector.dialects.agents import (
    AGENT_EVENT,
    ORGANIZATION,
    TOOLS,
    accounts_of,
    is_logged_in,
    under_subscription,
)
from farebox_collector.intake.decoding.bounds import Bounds
from farebox_collector.intake.decoding.errors import RequestTooLarge
from farebox_collector.intake.decoding.metric_points import MetricDecoder
from farebox_collector.intake.decoding.otlp_json import JsonDecoder
from farebox_collector.intake.decoding.otlp_json_logs import JsonLogDecoder
from farebox_collector.intake.decoding.protobuf import ProtobufDecoder
from farebox_collector.intake.decoding.protobuf_logs import ProtobufLogDecoder
from farebox_collector.intake.yielding import Pause, no_pause
from farebox_collector.ledger.access.erased import pseudonymous_letter, pseudonymous_usage
from farebox_collector.ledger.usage.batch import Calls
from farebox_collector.model.records import (
    DeadLetter,
    NotBillable,
    PricedUsage,
    QualityReport,
    Rejected,
    Span,
    UsageRecord,
)
from farebox_collector.pricing.agent_plans import EACH, PlanBook
from farebox_collector.pricing.price import price
from farebox_collector.settings import Settings

_HOUR_NS = 3600 * 10**9
_SPANS_A_PAUSE = 50
"""About a millisecond of work."""


class Encoding(StrEnum):
    """The form of a request body: its signal and its encoding."""

    PROTOBUF = "protobuf"
    JSON = "json"
    LOGS_PROTOBUF = "logs_protobuf"
    LOGS_JSON = "logs_json"
    METRICS_PROTOBUF = "metrics_protobuf"
    METRICS_JSON = "metrics_json"

    @property
    def tells_logs(self) -> bool:
        """Return whether the body holds log records."""
        return self in (Encoding.LOGS_PROTOBUF, Encoding.LOGS_JSON)


class ReadRequest(NamedTuple):
    """The result of reading one request."""

    calls: Calls
    places: list[int]
    """The position of each call's span in the request, from 0."""
    reports: list[QualityReport]
    dead: list[DeadLetter]
    not_billable: int
    spans: int

    @property
    def accepted(self) -> int:
        """Number of spans that concern the ledger."""
        return self.spans - self.not_billable


class ReadMetrics(NamedTuple):
    """The result of reading a request of metrics."""

    points: int
    """Number of all data points."""
    readings: list[MeterReading]


Reading = UsageRecord | QualityReport | NotBillable | Rejected


class SpanReader:
    """Read and price single spans."""

    def __init__(self, settings: Settings, tariffs: Tariffs) -> None:
        self._dialects = dialects.reader(settings.wallet_attributes)
        self._max_age_ns = settings.max_span_age_hours * _HOUR_NS
        self._tariffs = tariffs
        self._pseudonyms = settings.pseudonyms()
        self._agent_events = settings.agent_events
        self._subscriptions = frozenset(settings.subscription_accounts)

    def read(
        self, span: Span, tenant_id: int, received_at_ns: int
    ) -> PricedUsage | QualityReport | NotBillable | Rejected:
        """Read and price a span of a tenant that was received at a moment."""
        return self.read_all([span], tenant_id, received_at_ns)[0]

    def read_all(
        self, spans: Sequence[Span], tenant_id: int, received_at_ns: int
    ) -> list[PricedUsage | QualityReport | NotBillable | Rejected]:
        """Read and price spans of a tenant that were received at a moment.

        All are read before the first is priced: the processor is faster while it stays in one part of the code.
        """
        readings = list(map(self._dialects.read, spans))
        if self._subscriptions:
            readings = list(map(self._subscribed, readings, spans))
        return [
            self._priced(reading, span, tenant_id, received_at_ns) if isinstance(reading, UsageRecord) else reading
            for reading, span in zip(readings, spans, strict=True)
        ]

    def _subscribed(self, reading: Reading, span: Span) -> Reading:
        """Return a reading as one that a subscription pays if its coding agent's account is one."""
        if not isinstance(reading, UsageRecord) or reading.dialect not in TOOLS:
            return reading
        return reading if self._subscriptions.isdisjoint(accounts_of(span)) else under_subscription(reading)

    def _priced(self, usage: UsageRecord, span: Span, tenant_id: int, received_at_ns: int) -> PricedUsage:
        if usage.event == AGENT_EVENT and usage.dialect in self._agent_events:
            usage = usage._replace(event=self._agent_events[usage.dialect])
        if usage.started_at_ns >= self._tariffs.known_until_ns:
            self._tariffs.refresh_for(usage.started_at_ns)
        if self._pseudonyms is not None:
            usage = pseudonymous_usage(usage, self._pseudonyms)
        book, rules, erased, plans = self._tariffs.of(tenant_id)
        if erased is not None:
            usage = erased.in_usage(usage)
        if plans is not None and usage.dialect in TOOLS and _has_seat(usage, span, plans):
            usage = under_subscription(usage)
        return price(usage, received_at_ns, self._max_age_ns, book, rules)


def _has_seat(usage: UsageRecord, span: Span, plans: PlanBook) -> bool:
    """Return whether a plan of the call's moment pays it. A plan for each account pays no call with an API key."""
    found = plans.closest(usage.dialect, usage.user_id or usage.wallet, usage.started_at_ns)
    return found is not None and bool(found.plan) and (found.account != EACH or is_logged_in(usage, span))


class RequestReader:
    """Read whole requests. Thread-safe."""

    def __init__(self, settings: Settings, tariffs: Tariffs) -> None:
        wanted = dialects.wanted_attributes(settings.wallet_attributes)
        wanted_of_logs = dialects.wanted_log_attributes(settings.wallet_attributes)
        once, reduced = dialects.unique_attributes(), dialects.reduced_attributes()
        events = dialects.told_events()
        bounds = Bounds(settings.max_request_spans, settings.max_request_attributes)
        self._decoders: dict[Encoding, Callable[[bytes, Pause], Iterable[Span]]] = {
            Encoding.PROTOBUF: ProtobufDecoder(wanted, once, reduced, bounds),
            Encoding.JSON: JsonDecoder(wanted, reduced, bounds),
            Encoding.LOGS_PROTOBUF: ProtobufLogDecoder(events, wanted_of_logs, once, reduced, bounds),
            Encoding.LOGS_JSON: JsonLogDecoder(events, wanted_of_logs, reduced, bounds),
        }
        self._metrics = MetricDecoder(agent_metrics.METRICS, agent_metrics.KEYS, bounds)
        self._max_spans = settings.max_request_spans
        self._tariffs = tariffs
        self._reader = SpanReader(settings, tariffs)
        self._pseudonyms = settings.pseudonyms()
        self._wallet_attributes = (*settings.wallet_attributes, ORGANIZATION)

    def read(
        self, encoding: Encoding, body: bytes, tenant_id: int, received_at_ns: int, pause: Pause = no_pause
    ) -> ReadRequest:
        """Decode, read and price every span of a request. Raises MalformedRequest and RequestTooLarge."""
        self._tariffs.refresh()
        calls: list[PricedUsage] = []
        places: list[int] = []
        reports: list[QualityReport] = []
        dead: list[DeadLetter] = []
        not_billable = number = 0
        arriving = iter(self._decoders[encoding](body, pause))
        while spans := list(islice(arriving, _SPANS_A_PAUSE)):
            if number + len(spans) > self._max_spans:
                raise RequestTooLarge(f"the request has more than {self._max_spans} spans; send smaller batches")
            for place, reading in enumerate(self._reader.read_all(spans, tenant_id, received_at_ns), start=number):
                if isinstance(reading, PricedUsage):
                    calls.append(reading)
                    places.append(place)
                elif isinstance(reading, NotBillable):
                    not_billable += 1
                elif isinstance(reading, QualityReport):
                    reports.append(reading)
                else:
                    dead.append(self._letter(DeadLetter(spans[place - number], reading.reason), tenant_id))
            number += len(spans)
            pause()
        return ReadRequest(Calls.of(calls), places, reports, dead, not_billable, number)

    def metrics(self, encoding: Encoding, body: bytes, tenant_id: int, pause: Pause = no_pause) -> ReadMetrics:
        """Read a request of metrics. Raises MalformedRequest and RequestTooLarge."""
        decode = self._metrics.json if encoding is Encoding.METRICS_JSON else self._metrics.protobuf
        points, told = decode(body, pause)
        return ReadMetrics(points, [self._named(one, tenant_id) for one in agent_metrics.meter_readings(told)])

    def _named(self, reading: MeterReading, tenant_id: int) -> MeterReading:
        """Return a reading with the name of its person as the books may hold it."""
        person = reading.person if self._pseudonyms is None else self._pseudonyms.of(reading.person)
        erased = self._tariffs.of(tenant_id).erased
        pseudonym = None if erased is None else erased.pseudonym_of(person)
        return reading._replace(person=pseudonym or person)

    def _letter(self, letter: DeadLetter, tenant_id: int) -> DeadLetter:
        """Remove the names from a dead letter that the books may not hold."""
        if self._pseudonyms is not None:
            letter = pseudonymous_letter(letter, self._pseudonyms, self._wallet_attributes)
        erased = self._tariffs.of(tenant_id).erased
        return letter if erased is None else erased.in_letter(letter)

    def spans(self, encoding: Encoding, body: bytes) -> list[Span]:
        """Decode the spans of a request again, unchanged."""
        return list(self._decoders[encoding](body, no_pause))
