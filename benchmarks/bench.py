"""How fast Farebox is beside the least that any receiver must do, and whether it keeps its goals.

    make bench
    make bench ARGS="--parts against --against ../checkout-of-another-commit"
    make bench ARGS="--history 10000000 --soak-seconds 600 --rounds 5 --seconds 5 --write"

Every ratio is of medians of rounds that take turns in one run. What the wallets were debited is compared, wallet by
wallet and to the nano-dollar, with what the acknowledged calls cost. The result is printed, kept as JSON under
.bench/results, and with --write put into docs/explanation/performance.md. Nothing else should run on the machine
meanwhile.
"""

import argparse
import shlex
import sys
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

import against
import history
import intake
from figures import HEADINGS, Figure, machine, machine_words, markdown, save, show, write_section
from intake import TRANSPORTS, Bench, Sizes
from load import Generator
from rich.console import Console
from systems import POSTGRESQL, SCRATCH, SQLITE, Databases

PARTS = ("floor", "signals", "against", "replicas", "soak", "history")


def main() -> int:
    """The command; its exit status says whether every debit was exact, not whether goals were reached."""
    options = _options()
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
    host = machine()
    console.print(machine_words(host))
    sizes = Sizes(
        rounds=options.rounds,
        seconds=options.seconds,
        latency_seconds=options.latency_seconds,
        soak_seconds=options.soak_seconds,
        soak_window_seconds=min(Sizes().soak_window_seconds, options.soak_seconds / 8),
    )
    started = time.monotonic()
    with closing(Databases()) as databases, closing(Generator()) as generator:
        bench = Bench(generator, databases, sizes, console)
        figures: list[Figure] = []
        for part in _parts(options, bench):
            figures += part()
    console.print(f"took {time.monotonic() - started:.0f} s")
    show(console, "Farebox beside the floor", figures)
    command = f"benchmarks/bench.py {shlex.join(sys.argv[1:])}".strip()
    path = SCRATCH / "results" / time.strftime("bench-%Y%m%dT%H%M%SZ.json", time.gmtime())
    save(path, command, host, figures)
    console.print(f"kept in {path}")
    if options.write:
        table = markdown(HEADINGS, [figure.row() for figure in figures])
        write_section("bench", f"`{command}`; {machine_words(host)}.\n\n{table}")
    return 1 if any(figure.value and figure.unit == "nano-USD" for figure in figures) else 0


def _parts(options: argparse.Namespace, bench: Bench) -> list[Callable[[], list[Figure]]]:
    parts: list[Callable[[], list[Figure]]] = []
    if "floor" in options.parts:
        parts += [partial(intake.beside_the_floor, bench, kind, options.transports) for kind in options.databases]
    if "signals" in options.parts:
        parts += [partial(intake.of_signals, bench, kind) for kind in options.databases]
    if "against" in options.parts and options.against:
        trees = [(kind, tree) for tree in options.against for kind in options.databases]
        parts += [partial(against.beside_another, bench, kind, tree) for kind, tree in trees]
    if "replicas" in options.parts and POSTGRESQL in options.databases:
        parts.append(lambda: intake.of_replicas(bench))
    if "soak" in options.parts:
        parts += [partial(intake.for_long, bench, kind) for kind in options.soak_databases]
    if "history" in options.parts and options.history:
        parts += [partial(history.on_history, bench, kind, options.history) for kind in options.history_databases]
    return parts


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sizes = Sizes()
    kinds = (SQLITE, POSTGRESQL)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--against", nargs="+", type=Path, default=(), metavar="CHECKOUT", help="with its .venv set up")
    parser.add_argument("--databases", nargs="+", choices=kinds, default=kinds)
    parser.add_argument("--transports", nargs="+", choices=TRANSPORTS, default=TRANSPORTS)
    parser.add_argument("--rounds", type=int, default=sizes.rounds)
    parser.add_argument("--seconds", type=float, default=sizes.seconds, help="of a round")
    parser.add_argument("--latency-seconds", type=float, default=sizes.latency_seconds, help="at half of the top rate")
    parser.add_argument("--soak-seconds", type=float, default=sizes.soak_seconds, help="at the top rate")
    parser.add_argument("--soak-databases", nargs="+", choices=kinds, default=(SQLITE,))
    parser.add_argument("--history", type=int, default=200_000, metavar="RECORDS", help="in the books; 0 for none")
    parser.add_argument("--history-databases", nargs="+", choices=kinds, default=(SQLITE,))
    parser.add_argument("--write", action="store_true", help="put the table into docs/explanation/performance.md")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
