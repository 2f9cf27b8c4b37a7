"""All faults: each takes a world with new books, hurts it, and returns how that went."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from torture import (
    faults_content,
    faults_floods,
    faults_history,
    faults_load,
    faults_process,
    faults_senders,
    faults_storage,
)
from torture.floods import FLOODS
from torture.world import Result, World

SQLITE, POSTGRESQL = "sqlite", "postgresql"
BOTH = (SQLITE, POSTGRESQL)


class Fault(NamedTuple):
    """Something that happens to collectors."""

    name: str
    hurt: Callable[[World], Result]
    databases: tuple[str, ...] = BOTH


FAULTS = (
    Fault("kill -9", faults_process.kill_9),
    Fault("kill -9 around COMMIT", faults_process.kill_at_failpoints),
    Fault("SIGTERM", faults_process.sigterm),
    Fault("PostgreSQL restarted", faults_storage.postgresql_restarted, (POSTGRESQL,)),
    Fault("connections cut", faults_storage.connections_cut, (POSTGRESQL,)),
    Fault("COMMIT cut off", faults_storage.commit_cut, (POSTGRESQL,)),
    Fault("replicas crosswise", faults_storage.replicas_in_opposite_order, (POSTGRESQL,)),
    Fault("disk full", faults_storage.disk_full, (SQLITE,)),
    Fault("no more pages", faults_storage.no_more_pages, (SQLITE,)),
    Fault("database locked", faults_storage.database_locked, (SQLITE,)),
    Fault("sent again, torn apart", faults_content.sent_again),
    Fault("same span, other content", faults_content.conflicts),
    Fault("one call, two spans", faults_content.twin_spans),
    Fault("one call, nested spans", faults_content.nested_twins),
    Fault("deposits among charges", faults_content.deposits_among_charges),
    Fault("any history", faults_history.any_history),
    Fault("any payments", faults_history.any_payments),
    Fault("price change, late spans", faults_senders.price_change),
    Fault("clocks a year off", faults_senders.clock_off),
    Fault("hostile bodies", faults_load.hostile_bodies),
    Fault("more than it can take", faults_load.more_than_it_can_take),
    Fault("hostile strings", faults_senders.hostile_strings),
    Fault("ever new models", faults_senders.many_models),
    *(Fault(f"flood: {name}", partial(faults_floods.flood, name), (SQLITE,)) for name in FLOODS),
)
