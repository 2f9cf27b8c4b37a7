"""Any sequence of what moves money, in two tenants with the same names, against the plain arithmetic of `money_model`.

Top-ups, refunds, disputes, fees, automatic top-ups, lots that expire, late usage, actions, holds, rules, prices,
replays, better witnesses, agents, transfers and restarts; the clock moves by milliseconds, hours and months.
"""

import tempfile
from collections.abc import Callable
from contextlib import closing
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

from farebox_collector import dialects
from farebox_collector.background.replay import Replay
from farebox_collector.background.settling import Settling
from farebox_collector.cache.tariffs import Tariffs
from farebox_collector.ledger.access.tenants import create_tenant
from farebox_collector.ledger.credits.hold_release import expire_holds, void_hold
from farebox_collector.ledger.credits.holds import (
    AlreadyHeld,
    Held,
    HoldEnded,
    HoldRequest,
    Insufficient,
    take_holds,
)
from farebox_collector.ledger.credits.movements import (
    Kind,
    Movement,
    NotEnough,
    move,
)
from farebox_collector.ledger.payments.packs import PackTerms, set_pack
from farebox_collector.ledger.storage.connect import open_database
from farebox_collector.ledger.tariffs.prices import set_price
from farebox_collector.ledger.tariffs.rules import RuleAuthorship, RuleOverlap, set_rule
from farebox_collector.ledger.usage.booking import record_usage
from farebox_collector.ledger.usage.replay_candidates import ReplayScope
from farebox_collector.ledger.usage.running_totals import TotalLabels
from farebox_collector.model.records import CatalogueRow, Span, UsageRecord
from farebox_collector.model.verdicts import Verdict
from farebox_collector.pricing.price import price
from farebox_collector.pricing.rules import RuleTerms
from farebox_collector.settings import Settings
from hypothesis import assume
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule
from torture.money_model import (
    CREDIT,
    PACK_CREDITS,
    PACK_MINOR,
    Call,
    Hold,
    Lot,
    Rule,
    Tenant,
)

MS_NS, SECOND_NS, HOUR_NS, DAY_NS = 10**6, 10**9, 3600 * 10**9, 86_400 * 10**9
BEGIN_NS = 1_767_350_000 * 10**9
WEEK_NS = 7 * DAY_NS
MODEL = "gpt-4o-mini"
OUTPUT_NANO = 600
SHOP, LATE, CLUB, UNKNOWN = "shop", "late", "club", "unattributed"
"""`SHOP` buys packs and runs actions, its lots never expire; those of `LATE` and `CLUB` may."""
MILLION = 10**6
tenants = st.sampled_from((0, 1))
credit_amounts = st.integers(1, 12).map(lambda number: number * CREDIT)
token_pairs = st.tuples(st.integers(1, 9), st.integers(1, 4)).map(lambda pair: (pair[0] * MILLION, pair[1] * MILLION))
actions = st.sampled_from(("", "run-1", "run-2", "run-3"))
rules = st.one_of(
    st.builds(lambda n: Rule(0, "flat", floor=n * CREDIT), st.integers(1, 5)),
    st.builds(lambda n, m: Rule(0, "cost_plus", multiplier=n, floor=m * CREDIT), st.integers(1, 2), st.integers(0, 3)),
    st.builds(lambda n: Rule(0, "per_1k_tokens", input_per_1k=n * 1000), st.integers(1, 999)),
)
FIRST_RULE = Rule(0, "cost_plus", multiplier=1, floor=CREDIT)


class MoneyMachine(RuleBasedStateMachine):
    """The ledger through its own functions, and next to it what the documentation says that it must hold."""

    def __init__(self, new_books: Callable[[Path], str]) -> None:
        super().__init__()
        self._directory = tempfile.TemporaryDirectory()
        self._url = new_books(Path(self._directory.name))
        self.now_ns = BEGIN_NS
        self.numbers = 0
        self.models = (Tenant(), Tenant())
        self.prices = [(0, 150)]
        self.spans: list[tuple[int, Span]] = []
        self.nameless: list[tuple[int, int, str]] = []
        # Agents by tenant and number: when they were booked, whether a call of theirs was, what became of them.
        self.agents: dict[tuple[int, int], tuple[int, bool, str]] = {}
        with closing(open_database(self._url)) as database, database.transaction() as connection:
            others = f"model <> '{MODEL}' OR provider <> 'openai' OR condition <> 'standard'"
            connection.exec_driver_sql(f"UPDATE price_versions SET valid_to_ns = valid_from_ns WHERE {others}")
            connection.exec_driver_sql(f"DELETE FROM priced_models WHERE model <> '{MODEL}' OR provider <> 'openai'")
            self.ids = 1, create_tenant(connection, "other", Decimal(1), BEGIN_NS - DAY_NS)
        self._open()
        for tenant in (0, 1):
            self._set_rule(tenant, FIRST_RULE, BEGIN_NS - DAY_NS, BEGIN_NS - DAY_NS)
            terms = PackTerms("pack", PACK_CREDITS, "USD", PACK_MINOR)
            self._run(tenant, set_pack, terms=terms, author="t", reason="r")

    def _open(self) -> None:
        self.database = open_database(self._url)
        self.labels = TotalLabels()
        self.tariffs = Tariffs(self.database, lambda: self.now_ns)

    def _run(self, tenant: int, work: Callable[..., Any], **facts: Any) -> Any:
        facts = {"tenant_id": self.ids[tenant], "at_ns": self.now_ns} | facts
        return self.database.transact(partial(work, **facts))

    def _number(self) -> int:
        self.numbers += 1
        return self.numbers

    # Time, rules, prices

    @rule(step=st.sampled_from((MS_NS, 250 * MS_NS, HOUR_NS, 7 * HOUR_NS, DAY_NS, 31 * DAY_NS)))
    def wait(self, step: int) -> None:
        self.now_ns += step

    @rule()
    def restart(self) -> None:
        self.database.close()
        self._open()

    @rule(tenant=tenants, terms=rules, ahead=st.sampled_from((0, MS_NS, 500 * MS_NS, HOUR_NS)))
    def change_rule(self, tenant: int, terms: Rule, ahead: int) -> None:
        model = self.models[tenant]
        start_ns = self.now_ns + ahead
        try:
            self._set_rule(tenant, terms, self.now_ns, start_ns)
        except RuleOverlap:
            assert model.rules[-1].from_ns >= start_ns
        # The rule holds for a call that starts a millisecond later.
        self.now_ns += MS_NS

    def _set_rule(self, tenant: int, terms: Rule, at_ns: int, start_ns: int) -> None:
        floor = Decimal(terms.floor) / CREDIT
        figures = RuleTerms(
            terms.kind,
            multiplier=Decimal(terms.multiplier),
            minimum_credits=floor if terms.kind == "cost_plus" else Decimal(0),
            flat_credits=floor if terms.kind == "flat" else Decimal(0),
            input_credits_per_1k=Decimal(terms.input_per_1k) / CREDIT,
        )
        why = RuleAuthorship("t", "r")
        self._run(tenant, set_rule, event="run", terms=figures, authorship=why, at_ns=at_ns, valid_from_ns=start_ns)
        self.models[tenant].rules.append(Rule(start_ns, terms.kind, terms.multiplier, terms.floor, terms.input_per_1k))

    @rule(nano=st.integers(50, 400), hours_ago=st.integers(0, 20))
    def change_price(self, nano: int, hours_ago: int) -> None:
        since_ns = self.now_ns - hours_ago * HOUR_NS
        row = CatalogueRow("openai", MODEL, "input", 0, 0, 0, Decimal(nano) / 10**6, since_ns, None)
        with self.database.transaction() as connection:
            set_price(connection, row, "test", self.now_ns)
        self.prices = [entry for entry in self.prices if entry[0] < since_ns] + [(since_ns, nano)]
        self.now_ns += 2 * SECOND_NS

    def _cost(self, started_ns: int, tokens: tuple[int, int]) -> int:
        rate = next(nano for since_ns, nano in reversed(self.prices) if since_ns <= started_ns)
        return tokens[0] * rate + tokens[1] * OUTPUT_NANO

    # Calls

    @rule(tenant=tenants, tokens=token_pairs, hours_ago=st.integers(0, 20), action=actions)
    def call(self, tenant: int, tokens: tuple[int, int], hours_ago: int, action: str) -> None:
        self._call(tenant, SHOP, tokens, hours_ago, action)

    @rule(
        tenant=tenants, wallet=st.sampled_from((LATE, CLUB)), tokens=token_pairs,
        ago_ns=st.sampled_from((0, MS_NS, HOUR_NS, 5 * HOUR_NS, 20 * HOUR_NS)),
    )  # fmt: skip
    def late_call(self, tenant: int, wallet: str, tokens: tuple[int, int], ago_ns: int) -> None:
        self._call(tenant, wallet, tokens, ago_ns // HOUR_NS, "")

    @rule(tenant=tenants, tokens=token_pairs, hours_ago=st.integers(0, 5))
    def nameless_call(self, tenant: int, tokens: tuple[int, int], hours_ago: int) -> None:
        response = f"shared-{self.numbers}"
        number = self._call(tenant, UNKNOWN, tokens, hours_ago, "", response)
        self.nameless.append((tenant, number, response))

    @precondition(lambda self: self.nameless)
    @rule(data=st.data(), wallet=st.sampled_from((SHOP, LATE)), action=actions)
    def better_witness(self, data: st.DataObject, wallet: str, action: str) -> None:
        """The span that names the wallet comes after one of the same call that named none."""
        place = data.draw(st.integers(0, len(self.nameless) - 1))
        tenant, number, response = self.nameless.pop(place)
        before = self.models[tenant].calls[number]
        # A start that is older than the oldest span that is taken is that of the arrival.
        assume(self.now_ns - before.started_ns < WEEK_NS - HOUR_NS)
        twin = self._number()
        span = self._span(twin, before.started_ns, wallet, before.tokens, action if wallet == SHOP else "", response)
        assert self._record(tenant, [span]) == [Verdict.CHARGED]
        self._uncharge(tenant, number)
        self._charge(tenant, twin, wallet, action if wallet == SHOP else "", before.started_ns, before.tokens)

    @precondition(lambda self: self.spans)
    @rule(data=st.data())
    def resend(self, data: st.DataObject) -> None:
        tenant, span = data.draw(st.sampled_from(self.spans))
        assert self._record(tenant, [span, span]) == [Verdict.DUPLICATE] * 2

    @rule(tenant=tenants, action=actions, tokens=st.integers(1, 9))
    def agent(self, tenant: int, action: str, tokens: int) -> None:
        """An agent reports the sum of its calls, which may turn up or not."""
        number = self._number()
        span = self._span(number, self.now_ns - number, SHOP, (tokens * MILLION, 7 * MILLION), action)
        attributes = {**span.attributes, "gen_ai.operation.name": "invoke_agent", "gen_ai.response.id": ""}
        span = span._replace(attributes=attributes, end_ns=span.start_ns + 10 * SECOND_NS)
        assert self._record(tenant, [span]) == [Verdict.DEFERRED]
        self.spans.append((tenant, span))
        self.agents[tenant, number] = self.now_ns, False, "deferred"

    @precondition(lambda self: self.agents)
    @rule(data=st.data(), tokens=token_pairs, action=actions)
    def agents_call(self, data: st.DataObject, tokens: tuple[int, int], action: str) -> None:
        """A call of an agent turns up, before or after the agent was charged."""
        tenant, number = data.draw(st.sampled_from(sorted(self.agents)))
        at_ns, _, state = self.agents[tenant, number]
        assume(self.now_ns - at_ns < 2 * DAY_NS)
        (agent,) = (span for at, span in self.spans if (at, span.span_id) == (tenant, number.to_bytes(8, "big")))
        child = self._number()
        span = self._span(child, agent.start_ns + SECOND_NS + child, SHOP, tokens, action)
        span = span._replace(trace_id=agent.trace_id, parent_span_id=agent.span_id)
        assert self._record(tenant, [span]) == [Verdict.CHARGED]
        self.spans.append((tenant, span))
        self._charge(tenant, child, SHOP, action, span.start_ns, tokens)
        self.agents[tenant, number] = at_ns, True, state

    @rule()
    def settle(self) -> None:
        """A round of the collector: agents whose calls did not turn up pay, those whose calls did get it back."""
        self.now_ns += HOUR_NS
        settling = Settling(Settings(database_url="sqlite:///unused"), self.database, self.tariffs, lambda: self.now_ns)
        settling.round()
        for (tenant, number), (at_ns, has_call, state) in self.agents.items():
            if state == "deferred" and not has_call:
                (span,) = (one for of, one in self.spans if (of, one.span_id) == (tenant, number.to_bytes(8, "big")))
                tokens = int(span.attributes["gen_ai.usage.input_tokens"]), 7 * MILLION  # type: ignore[arg-type]
                action = str(span.attributes.get("farebox.action.id", ""))
                self._charge(tenant, number, SHOP, action, span.start_ns, tokens)
            if state == "charged" and has_call:
                self._uncharge(tenant, number)
            self.agents[tenant, number] = at_ns, has_call, "covered" if has_call else "charged"

    @rule(tenant=tenants, first=st.integers(1, 48), hours=st.integers(1, 48))
    def replay(self, tenant: int, first: int, hours: int) -> None:
        from_ns = self.now_ns - first * HOUR_NS
        scope = ReplayScope(from_ns, from_ns + hours * HOUR_NS)
        Replay(self.database, self.ids[tenant], scope, lambda: self.now_ns).post()
        model = self.models[tenant]
        chosen = [call for call in model.calls.values() if scope.from_ns <= call.started_ns < scope.to_ns]
        before = {(call.wallet, call.action): model.action_charge(call.wallet, call.action) for call in chosen}
        for call in chosen:
            call.cost = self._cost(call.started_ns, call.tokens)
        # One transaction: of each wallet, what is used between two ends of lots comes together.
        changes: dict[tuple[str, int], tuple[int, int]] = {}
        for call in chosen:
            charged = before.pop((call.wallet, call.action), None)
            if charged is None:
                continue
            ends = [lot.expires_ns for lot in model.wallets[call.wallet].lots if lot.expires_ns]
            # A day's end parts them too.
            place = call.wallet, sum(end < call.started_ns for end in ends) + call.started_ns // DAY_NS
            more, moment_ns = changes.get(place, (0, call.started_ns))
            changes[place] = more + model.action_charge(call.wallet, call.action) - charged, moment_ns
        for (wallet, _), (more, moment_ns) in sorted(changes.items()):
            model.wallets[wallet].use(more, moment_ns)

    def _call(
        self, tenant: int, wallet: str, tokens: tuple[int, int], hours_ago: int, action: str, response_id: str = ""
    ) -> int:
        number = self._number()
        span = self._span(number, self.now_ns - hours_ago * HOUR_NS - number, wallet, tokens, action, response_id)
        assert self._record(tenant, [span]) == [Verdict.CHARGED]
        self.spans.append((tenant, span))
        self._charge(tenant, number, wallet, action, span.start_ns, tokens)
        return number

    def _charge(
        self, tenant: int, number: int, wallet: str, action: str, started_ns: int, tokens: tuple[int, int]
    ) -> None:
        model = self.models[tenant]
        action = action or f"#{number}"
        before = model.action_charge(wallet, action)
        cost = self._cost(started_ns, tokens)
        model.calls[number] = Call(number, wallet, action, started_ns, tokens, cost, model.rule_at(started_ns))
        model.wallets[wallet].use(model.action_charge(wallet, action) - before, started_ns)

    def _uncharge(self, tenant: int, number: int) -> None:
        model = self.models[tenant]
        call = model.calls[number]
        before = model.action_charge(call.wallet, call.action)
        del model.calls[number]
        model.wallets[call.wallet].use(model.action_charge(call.wallet, call.action) - before, call.started_ns)

    def _record(self, tenant: int, spans: list[Span]) -> list[Verdict]:
        self.tariffs.refresh()
        priced = []
        for span in spans:
            usage = dialects.read(span, ("user.id",))
            assert isinstance(usage, UsageRecord), usage
            self.tariffs.refresh_for(usage.started_at_ns)
            priced.append(price(usage, self.now_ns, WEEK_NS, *self.tariffs.of(self.ids[tenant])[:2]))
        with self.database.transaction() as connection:
            return record_usage(connection, self.ids[tenant], priced, self.now_ns, self.labels)

    @staticmethod
    def _span(
        number: int, start_ns: int, wallet: str, tokens: tuple[int, int], action: str, response_id: str = ""
    ) -> Span:
        attributes: dict[str, Any] = {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "openai",
            "gen_ai.request.model": MODEL,
            "gen_ai.usage.input_tokens": tokens[0],
            "gen_ai.usage.output_tokens": tokens[1],
            "gen_ai.response.id": response_id or f"r-{number}",
            "farebox.event": "run",
        }
        attributes |= {"farebox.wallet": wallet} if wallet != UNKNOWN else {}
        attributes |= {"farebox.action.id": action} if action else {}
        ids = number.to_bytes(16, "big"), number.to_bytes(8, "big")
        return Span(*ids, b"", start_ns, start_ns + SECOND_NS, False, attributes, {}, "test", "1")

    # Credits

    @rule(
        tenant=tenants, wallet=st.sampled_from((SHOP, LATE, CLUB)), amount=credit_amounts, each=st.integers(0, 3),
        kind=st.sampled_from((Kind.DEPOSIT, Kind.GRANT, Kind.PROMOTION)), priority=st.sampled_from((50, 100, 200)),
        lasts=st.sampled_from((0, 0, HOUR_NS, 7 * HOUR_NS, 40 * DAY_NS)),
    )  # fmt: skip
    def put_in(self, tenant: int, wallet: str, amount: int, each: int, kind: Kind, priority: int, lasts: int) -> None:
        model = self.models[tenant].wallets[wallet]
        if wallet == SHOP:
            lasts = 0
        each = each if kind is Kind.DEPOSIT else 0
        expires_ns = self.now_ns + lasts if lasts else None
        self._move(tenant, Movement(kind, wallet, amount, amount * each, priority=priority, expires_at_ns=expires_ns))
        model.add(Lot(len(model.lots), amount, each, priority, kind is Kind.PROMOTION, expires_ns))

    @rule(tenant=tenants, wallet=st.sampled_from((LATE, CLUB)), amount=credit_amounts, transfer=st.booleans())
    def take_out(self, tenant: int, wallet: str, amount: int, transfer: bool) -> None:
        model = self.models[tenant]
        figures = model.figures(wallet, self.now_ns)
        other = CLUB if wallet == LATE else LATE
        kind = Kind.TRANSFER if transfer else Kind.WITHDRAWAL
        enough = min(figures.balance - model.held(wallet, self.now_ns), sum(figures.left)) >= amount
        try:
            self._move(tenant, Movement(kind, wallet, amount, to_wallet=other if transfer else ""))
        except NotEnough:
            assert not enough
            return
        assert enough
        for lot, part in model.wallets[wallet].take(amount, self.now_ns):
            if transfer:
                to = model.wallets[other]
                to.add(Lot(len(to.lots), part, lot.price_each, lot.priority, lot.promotional, lot.expires_ns))

    def _move(self, tenant: int, movement: Movement) -> None:
        self._run(tenant, move, movement=movement, idempotency_key=f"move-{self._number()}")

    # Holds

    @rule(
        tenant=tenants, wallet=st.sampled_from((SHOP, LATE)), action=st.sampled_from(("run-1", "run-2", "run-3")),
        amount=credit_amounts, seconds=st.sampled_from((1, 3600, 86_400)), key=st.sampled_from(("", "a", "b")),
    )  # fmt: skip
    def hold(self, tenant: int, wallet: str, action: str, amount: int, seconds: int, key: str) -> None:
        model = self.models[tenant]
        known = model.holds.get(key)
        if known:
            wallet, action, amount, seconds = known.wallet, known.action, known.amount, known.seconds
        key = key or f"hold-{self._number()}"
        (answer,) = self._run(tenant, take_holds, wanted=[HoldRequest(wallet, amount, key, "run", action, seconds)])
        if known:
            still = known.open(model.action_charge(wallet, action), self.now_ns)
            assert isinstance(answer, Held if still else HoldEnded), answer
            return
        if any((one.wallet, one.action) == (wallet, action) for one in model.holds.values()):
            assert isinstance(answer, AlreadyHeld), answer
            return
        available = model.figures(wallet, self.now_ns).balance - model.held(wallet, self.now_ns)
        if not isinstance(answer, Held):
            assert isinstance(answer, Insufficient), answer
            assert available < amount
            assert answer.available_nanocredits == (available if answer.known else 0)
            return
        assert answer.available_nanocredits == available - amount
        charged = model.action_charge(wallet, action)
        expires_ns = self.now_ns + seconds * SECOND_NS
        model.holds[key] = Hold(wallet, action, amount, charged, expires_ns, seconds, answer.hold_id)

    @precondition(lambda self: any(model.holds for model in self.models))
    @rule(data=st.data(), sweep=st.booleans())
    def end_hold(self, data: st.DataObject, sweep: bool) -> None:
        if sweep:
            self.database.transact(lambda connection: expire_holds(connection, self.now_ns))
            return
        tenant = data.draw(st.sampled_from([place for place, model in enumerate(self.models) if model.holds]))
        model = self.models[tenant]
        one = model.holds[data.draw(st.sampled_from(sorted(model.holds)))]
        self._run(tenant, void_hold, hold_id=one.hold_id)
        one.voided |= bool(one.open(model.action_charge(one.wallet, one.action), self.now_ns))
