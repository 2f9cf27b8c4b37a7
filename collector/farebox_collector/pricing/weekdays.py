"""Weekdays on which a price holds, as people write them: `mon-fri`, `sat,sun`. Pure."""

NAMES = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
EVERY_DAY = 0


def weekdays_of(text: str) -> int:
    """Return the days as the book stores them, Monday 1, Tuesday 2, Wednesday 4, …; 0, every day, for an empty text.

    Raises ValueError with what to write instead.
    """
    mask = 0
    for part in filter(None, (part.strip() for part in text.lower().split(","))):
        first, dash, last = part.partition("-")
        ends = [_place(first, text), _place(last if dash else first, text)]
        day = ends[0]
        mask |= 1 << day
        while day != ends[1]:
            day = (day + 1) % 7
            mask |= 1 << day
    return EVERY_DAY if mask == 0b1111111 else mask


def weekday_names(mask: int) -> str:
    """Format the days as a text that `weekdays_of` reads; empty for every day."""
    days = [day for day in range(7) if mask >> day & 1]
    if len(days) > 2 and days[-1] - days[0] == len(days) - 1:
        return f"{NAMES[days[0]]}-{NAMES[days[-1]]}"
    return ",".join(NAMES[day] for day in days)


def _place(name: str, text: str) -> int:
    try:
        return NAMES.index(name.strip())
    except ValueError:
        raise ValueError(f"{text!r} are not weekdays; write them as mon-fri or sat,sun") from None
