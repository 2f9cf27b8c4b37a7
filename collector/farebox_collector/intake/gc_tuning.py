"""Tune the garbage collector of a process."""

import gc


def tune_gc() -> None:
    """Freeze startup objects and raise GC thresholds.

    A batch makes some hundred thousand tuples without cycles. With default thresholds, traversing them and the price
    book took a fifth of the time of a span.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
