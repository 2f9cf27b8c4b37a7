"""The machine of `money_machine` with what random steps seldom make: long chains of steps, and retirement."""

from farebox_collector.ledger.credits.lots import draw_up
from farebox_collector.ledger.credits.movements import Kind
from farebox_collector.ledger.usage.retention import retire
from hypothesis import strategies as st
from hypothesis.stateful import rule
from torture.money_machine import DAY_NS, MILLION, SHOP, MoneyMachine, credit_amounts, tenants, token_pairs
from torture.money_model import CREDIT

RETENTION_NS = 35 * DAY_NS


class ChainedMachine(MoneyMachine):
    """Steps that are several at once."""

    @rule(
        tenant=tenants, amount=credit_amounts, tokens=token_pairs, nano=st.integers(50, 400),
        how=st.sampled_from(("agent", "price")),
    )  # fmt: skip
    def correct_while_held(self, tenant: int, amount: int, tokens: tuple[int, int], nano: int, how: str) -> None:
        """Corrections of an action with an open hold: an agent pays late, or a price was another one."""
        action = f"held-{self._number()}"
        self.put_in(tenant, SHOP, 12 * CREDIT, 0, Kind.GRANT, 100, 0)
        self.hold(tenant, SHOP, action, amount, 86_400, "")
        if how == "agent":
            self.agent(tenant, action, tokens[0] // MILLION)
            self.settle()
        else:
            self._call(tenant, SHOP, tokens, 0, action)
            self.change_price(nano, 1)
            self.replay(tenant, 2, 3)

    @rule(days=st.sampled_from((0, 36)))
    def retire(self, days: int) -> None:
        """Detail of calls goes: what they were charged, and who paid, stays as it was."""
        self.now_ns += days * DAY_NS
        for tenant, model in enumerate(self.models):
            for name in sorted(model.wallets):
                self._run(tenant, draw_up, wallet=name)
        after, ended = 0, False
        while not ended:
            with self.database.transaction() as connection:
                stretch = retire(connection, after, self.now_ns - RETENTION_NS, 1_000)
            after, ended = stretch.last_id, stretch.ended
