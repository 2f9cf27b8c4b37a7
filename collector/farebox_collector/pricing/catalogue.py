"""The published catalogue of genai-prices. Imported only when needed: at the first start and by commands."""

from farebox_collector.pricing.price_lists import Catalogue


def genai_prices_catalogue(allow_free: bool = False) -> Catalogue:
    """Read the catalogue of the installed genai-prices package; no network."""
    # The import takes a tenth of a second; other starts must not pay for it.
    from farebox_collector.pricing.bundled import read_catalogue

    return read_catalogue(allow_free)


def bundled_catalogues(allow_free: bool = False) -> list[Catalogue]:
    """Return the catalogue with our corrections: price lists to import in order, in one transaction."""
    from farebox_collector.pricing.own_prices import corrected

    return corrected(genai_prices_catalogue(allow_free))
