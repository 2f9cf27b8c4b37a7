"""Random histories against a plain model: spans are sent, resent, shuffled and split; the books equal the model."""

from collections import Counter

from blank import blank_sqlite
from calls import START_NS, call
from farebox_collector import assembly
from farebox_collector.ledger.audit.books_audit import audit
from farebox_collector.ledger.credits.deposits import deposit
from farebox_collector.ledger.reports import statements
from farebox_collector.ledger.usage.booking import record_usage
from farebox_collector.ledger.usage.running_totals import TotalLabels
from farebox_collector.model.records import DEFAULT_TENANT_ID
from farebox_collector.model.verdicts import Verdict
from farebox_collector.settings import Settings
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

WALLETS = ("ada", "bob", "unattributed")
# A small world, so that spans repeat often, in the same batch and in later ones.
spans = st.builds(
    call,
    st.integers(1, 12),
    trace=st.integers(1, 2),
    wallet=st.sampled_from(WALLETS),
    event=st.sampled_from(("chat", "agent")),
    cost_nanousd=st.integers(1, 3),
    verdict=st.sampled_from((Verdict.CHARGED, Verdict.CHARGED, Verdict.UNPRICED, Verdict.UNMETERED)),
    response_id=st.just("unique"),
)
steps = st.one_of(
    st.lists(spans, min_size=1, max_size=20),
    st.tuples(st.sampled_from(WALLETS), st.integers(1, 1000), st.integers(1, 6)),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(steps, max_size=12))
def test_the_books_say_what_a_plain_model_says(tmp_path_factory: object, history: list[object]) -> None:
    directory = tmp_path_factory.mktemp("books")  # type: ignore[attr-defined]
    database = assembly.open_books(Settings(database_url=blank_sqlite(directory)), lambda: START_NS)
    labels = TotalLabels()
    first: dict[tuple[bytes, bytes], object] = {}
    balance: Counter[str] = Counter()
    keys: dict[int, tuple[str, int]] = {}
    try:
        for step in history:
            if isinstance(step, tuple):
                wallet, amount, key = step
                if keys.setdefault(key, (wallet, amount)) != (wallet, amount):
                    continue
                with database.transaction() as connection:
                    made = deposit(connection, DEFAULT_TENANT_ID, wallet, amount, str(key), START_NS)
                if not made.repeated:
                    balance[wallet] += amount
                continue
            # One response id a span: the guard across instrumentations has tests of its own.
            batch = [
                item._replace(usage=item.usage._replace(response_id=(item.usage.trace_id + item.usage.span_id).hex()))
                for item in step  # type: ignore[attr-defined]
            ]
            with database.transaction() as connection:
                verdicts = record_usage(connection, DEFAULT_TENANT_ID, batch, START_NS, labels)
            for item, verdict in zip(batch, verdicts, strict=True):
                key_of_span = (item.usage.trace_id, item.usage.span_id)
                if key_of_span not in first:
                    first[key_of_span] = item.usage
                    assert verdict is item.verdict
                    balance[item.usage.wallet] -= item.charge_nanocredits or 0
                else:
                    same = first[key_of_span] == item.usage
                    assert verdict is (Verdict.DUPLICATE if same else Verdict.CONFLICT)
        with database.reading() as connection:
            assert list(audit(connection)) == []
            found = {row.name: row.balance_nano for row in statements.wallets(connection, DEFAULT_TENANT_ID)}
        assert {name: amount for name, amount in found.items() if amount} == {
            name: amount for name, amount in balance.items() if amount
        }
    finally:
        database.close()
