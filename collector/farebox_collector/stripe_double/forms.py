"""Parse bodies of Stripe's clients: forms with nested names, such as `line_items[0][price_data][currency]`."""

import re
from typing import Any
from urllib.parse import parse_qsl

_PART = re.compile(r"\[([^\]]*)\]")


def read_form(text: str) -> dict[str, Any]:
    """Return nested dictionaries of texts. Dictionaries whose names are numbers from 0 on become lists.

    >>> read_form("a[0][b]=1&a[1][b]=2&c=3")
    {'a': [{'b': '1'}, {'b': '2'}], 'c': '3'}
    """
    root: dict[str, Any] = {}
    for name, value in parse_qsl(text, keep_blank_values=True):
        head, _, _ = name.partition("[")
        place, steps = root, [head, *_PART.findall(name)]
        for step in steps[:-1]:
            place = place.setdefault(step, {})
        place[steps[-1]] = value
    return {name: _listed(value) for name, value in root.items()}


def _listed(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    inner = {name: _listed(part) for name, part in value.items()}
    if inner and all(name == str(place) for place, name in enumerate(inner)):
        return list(inner.values())
    return inner
