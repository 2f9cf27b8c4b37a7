"""Quality of an answer, from Farebox attributes. The keys are the same in every dialect."""

from farebox_collector.model.records import Attributes, AttributeValue, Quality

_CACHE_HIT = "farebox.cache_hit"
_CITATION_RATE = "farebox.citation_rate"
_HUMAN_REVIEWED = "farebox.human_reviewed"
_APPROVED = "farebox.review.approved"

QUALITY_KEYS = frozenset({_CACHE_HIT, _CITATION_RATE, _HUMAN_REVIEWED, _APPROVED})

_WORDS = {"true": 1, "false": 0, "1": 1, "0": 0}


def quality_of(attributes: Attributes) -> Quality:
    """Read the quality of an answer. Ignore values that are not yes or no, or not a share between 0 and 1."""
    approved = _yes_or_no(attributes.get(_APPROVED))
    reviewed = _yes_or_no(attributes.get(_HUMAN_REVIEWED))
    return Quality(
        cache_hit=_yes_or_no(attributes.get(_CACHE_HIT)),
        citation_rate_ppm=_parts_per_million(attributes.get(_CITATION_RATE)),
        human_reviewed=1 if approved is not None else reviewed,
        review_approved=approved,
    )


def _yes_or_no(value: AttributeValue | None) -> int | None:
    if isinstance(value, str):
        return _WORDS.get(value.strip().lower())
    return int(value) if isinstance(value, int) and value in (0, 1) else None


def _parts_per_million(value: AttributeValue | None) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        return None
    return round(value * 1_000_000)
