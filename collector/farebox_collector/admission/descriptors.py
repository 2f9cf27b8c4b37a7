"""Limit connections to the file descriptors of the process."""

import logging
import resource

_OWN = 512
"""Descriptors for everything except clients: books, threads, outgoing connections."""

_logger = logging.getLogger(__name__)


def connections_of_port(wanted: int, ports: int) -> int:
    """Return how many connections each port may have: `wanted`, or fewer if there are too few descriptors.

    Raises the soft limit of the process as far as needed and allowed.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted * ports + _OWN
    if soft != resource.RLIM_INFINITY and soft < needed and soft != hard:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return wanted
    possible = max(1, (soft - _OWN) // ports if soft > 2 * _OWN else soft // (2 * ports))
    _logger.warning(
        "only %d connections to each port instead of %d: the process may have %d descriptors; raise `ulimit -n`",
        possible,
        wanted,
        soft,
    )
    return possible
