"""How often a process looks for garbage."""

import gc


def look_for_garbage_seldom() -> None:
    """Pass over what is there already, which lives as long as the process, and come by less often.

    A batch makes some hundred thousand tuples, none of them in a cycle; looking through them, and through the price
    book each time, took a fifth of the time of a span.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
