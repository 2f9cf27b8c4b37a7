"""From a span to what it costs: dialect, then price, by the settings and the tariffs in force."""

from farebox_collector import dialects
from farebox_collector.pricing.price import price
from farebox_collector.records import NotBillable, PricedUsage, QualityReport, Rejected, Span
from farebox_collector.settings import Settings
from farebox_collector.tariffs import Tariffs

_HOUR_NS = 3600 * 10**9


class SpanReader:
    """Reads spans by one set of settings and tariffs."""

    def __init__(self, settings: Settings, tariffs: Tariffs) -> None:
        self._wallet_attributes = settings.wallet_attributes
        self._max_age_ns = settings.max_span_age_hours * _HOUR_NS
        self._tariffs = tariffs

    def read(
        self, span: Span, tenant_id: int, received_at_ns: int
    ) -> PricedUsage | QualityReport | NotBillable | Rejected:
        """What a span of a tenant that was received at a moment comes to."""
        reading = dialects.read(span, self._wallet_attributes)
        if isinstance(reading, NotBillable | Rejected | QualityReport):
            return reading
        return price(reading, received_at_ns, self._max_age_ns, *self._tariffs.of(tenant_id))
