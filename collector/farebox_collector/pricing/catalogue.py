"""The published catalogue of genai-prices, which is imported when it is wanted: at a first start, and by commands."""

from farebox_collector.pricing.price_lists import Catalogue


def genai_prices_catalogue(allow_free: bool = False) -> Catalogue:
    """The catalogue inside the installed genai-prices package; no network."""
    # A tenth of a second, which no other start shall take.
    from farebox_collector.pricing.bundled import read_catalogue

    return read_catalogue(allow_free)


def bundled_catalogues(allow_free: bool = False) -> list[Catalogue]:
    """The same with our own corrections: price lists to be imported one after the other, and in one transaction."""
    from farebox_collector.pricing.own_prices import corrected

    return corrected(genai_prices_catalogue(allow_free))
