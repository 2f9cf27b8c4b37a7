"""The finance dashboard, for people responsible for money: do we earn, on what, and will budgets last the month?"""

from __future__ import annotations

import itertools

from building import (
    GREEN,
    ON_THESE,
    PRICED,
    RED,
    SPENT,
    YELLOW,
    Query,
    Sheet,
    Sql,
    gauge,
    matching,
    narrowed_by,
    new_board,
    over_range,
    rate,
)
from farebox_collector.ledger.reports.metric_readings import BALANCE_BOUNDS_CREDITS
from farebox_collector.ledger.reports.terms import MEANINGS, Term
from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.models import dashboard as models

UID = "farebox-finance"
_NAMES = ("event", "dept", "provider", "model")
_M = matching(_NAMES)
_COST = "farebox_cost_usd_total"
_CHARGED = "farebox_charged_credits_total"
_MONEY = "farebox_money_usd"
_SHOWN = "priced_at_ns >= $__unixEpochNanoFrom() AND priced_at_ns < $__unixEpochNanoTo()"
_IN, _OUT = "(input|cache).*", "(output|reasoning).*"
_GAIN = ((None, RED), (0.0, YELLOW), (0.2, GREEN))


def _net(metric: str, taken_back: str, *by: str) -> str:
    """The amount booked over the time shown, minus reversals by corrections."""
    return f"({over_range(metric, SPENT, by, _M)} - {over_range(taken_back, SPENT, by, _M)})"


def _cost(*by: str) -> str:
    return _net(_COST, "farebox_reversed_cost_usd_total", *by)


def _charge_value(*by: str) -> str:
    return _net("farebox_charge_value_usd_total", "farebox_reversed_charge_value_usd_total", *by)


def _booked(term: str) -> str:
    """A term of money over the time shown, or since the beginning if that is within it; of all events."""
    own = f'{_MONEY}{{{ON_THESE}, term="{term}"}}'
    return f"(max({own}) - (max({own} offset $__range) or max({own}) * 0))"


def _all_cost() -> str:
    """The cost over the time shown, whatever is chosen."""
    return f"({over_range(_COST, SPENT, (), '')} - {over_range('farebox_reversed_cost_usd_total', SPENT, (), '')})"


def _tokens(*by: str) -> str:
    return over_range("farebox_tokens_total", (*SPENT, "kind"), by, f'{_M}, kind!="reasoning"')


def _per_1k(kinds: str = ".+") -> str:
    """Cost of 1,000 tokens of some kinds over the time shown, by model."""
    chosen, models = f'{matching(("provider", "model"))}, kind=~"{kinds}"', ("provider", "model")
    cost = over_range("farebox_token_cost_usd_total", PRICED, models, chosen)
    return f"1000 * {cost} / ({over_range('farebox_priced_tokens_total', PRICED, models, chosen)} > 0)"


def _list_price(kind: str) -> str:
    chosen = f'{matching(("provider", "model"))}, kind="{kind}"'
    return gauge("farebox_list_price_usd_per_1k", ("provider", "model"), chosen)


def _an_hour(metric: str, *by: str) -> str:
    return f"3600 * {rate(metric, SPENT, by, _M)}"


def board() -> dashboard.Dashboard:
    """Build the dashboard."""
    made = new_board(
        UID,
        "Farebox finance",
        "Do we earn, on what, and will budgets last the month? Counters are read from the ledger; tables of wallets and"
        " events query its database.",
        ("farebox-operations", "Farebox operations"),
    ).time("now-7d", "now")
    made = made.with_variable(
        dashboard.DatasourceVariable("books")
        .label("Books")
        .type("grafana-postgresql-datasource")
        .current(models.VariableOption(selected=True, text="Books", value="books"))
    )
    sheet = Sheet(narrowed_by(made, _COST, _NAMES))
    _at_a_glance(sheet)
    _costs(sheet)
    _worth(sheet)
    _customers(sheet)
    _plan(sheet)
    return sheet.board


def _at_a_glance(sheet: Sheet) -> None:
    sheet.row("Do we earn?")
    margin = f"({_charge_value()} - {_cost()}) / ({_charge_value()} > 0)"
    blended = f"1000 * {_cost()} / ({_tokens()} > 0)"
    for title, description, expr, decimals in (
        ("What did calls cost?", f"Cost: {MEANINGS[Term.COST]} Net of corrections.", _cost(), 2),
        ("What was sold, at list?", f"Charge value: {MEANINGS[Term.CHARGE_VALUE]}", _charge_value(), 2),
        ("What do 1,000 tokens cost?", "Blended cost of 1,000 input and output tokens.", blended, 5),
    ):
        sheet.stat(title, description, "currencyUSD", Query(expr, instant=True), decimals=decimals, width=6)
    at_list = f"{MEANINGS[Term.MARGIN_AT_LIST]} It is not profit."
    sheet.stat(
        "What is the margin at list?", at_list, "percentunit", Query(margin, instant=True),
        steps=_GAIN, decimals=1, width=6,
    )  # fmt: skip
    terms = {name: _booked(name) for name in ("revenue", "breakage", "refunds", "fees")}
    profit = f"{terms['revenue']} + {terms['breakage']} - {terms['refunds']} - {_all_cost()} - {terms['fees']}"
    sheet.bars(
        "What was earned, and what is open?",
        "Of all events, over the time shown, and now for deferred revenue and receivable. "
        + " ".join(
            f"{term.value.capitalize()}: {MEANINGS[term]}"
            for term in (Term.REVENUE, Term.PROFIT, Term.CASH_IN, Term.DEFERRED_REVENUE, Term.RECEIVABLE)
        ),
        "currencyUSD",
        *(Query(expr, name, instant=True) for name, expr in terms.items()),
        Query(_all_cost(), "cost", instant=True),
        Query(profit, "profit", instant=True),
        Query(_booked("cash_in"), "cash in", instant=True),
        Query(gauge(_MONEY, (), 'term="deferred_revenue"'), "deferred revenue, now", instant=True),
        Query(gauge(_MONEY, (), 'term="receivable"'), "receivable, now", instant=True),
        width=24,
    )


def _costs(sheet: Sheet) -> None:
    sheet.row("What costs?")
    for title, what, labels in (
        ("Which events?", "product event", ("event",)),
        ("Which departments?", "department", ("dept",)),
        ("Which models?", "model", ("provider", "model")),
    ):
        query = Query(_an_hour(_COST, *labels), "/".join(f"{{{{{label}}}}}" for label in labels))
        sheet.lines(title, f"Cost per hour by {what}.", "currencyUSD", query, stacked=True, width=6)
    sheet.table(
        "Which projects and tasks?",
        "The ten most expensive over the time shown, net of corrections.",
        "currencyUSD",
        Query(f"topk(10, {_cost('project', 'task')})", "cost"),
        width=6,
        sort_by="cost",
    )


def _worth(sheet: Sheet) -> None:
    sheet.row("Is it worth it?")
    sheet.table(
        "What is each event worth, at list?",
        "From the books: calls, cost, charge value, and charge value less cost, by event over the time shown.",
        "currencyUSD",
        Sql(
            f"""
            SELECT r.event, count(*) AS calls,
                   sum(r.cost_nanousd) / 1e9 AS cost_usd,
                   sum(r.charge_nanocredits * t.usd_per_credit::numeric) / 1e9 AS charge_value_usd,
                   sum(r.charge_nanocredits * t.usd_per_credit::numeric - r.cost_nanousd) / 1e9 AS less_cost_usd
            FROM usage_records r JOIN tenants t ON t.id = r.tenant_id
            WHERE r.verdict = 'charged' AND r.{_SHOWN.replace(" AND ", " AND r.")}
            GROUP BY r.event ORDER BY less_cost_usd LIMIT 20
            """
        ),
        width=12,
        sort_by="less_cost_usd",
        units={"calls": "short"},
    )
    sheet.table(
        "What do 1,000 tokens cost, by model?",
        "Cost of 1,000 tokens over the time shown, blended and by direction, with the current list prices. All events"
        " and departments. Below the list price: cache or negotiated price. Above: long contexts or a service tier.",
        "currencyUSD",
        Query(_per_1k(), "blended"),
        Query(_per_1k(_IN), "in"),
        Query(_list_price("input"), "in, list"),
        Query(_per_1k(_OUT), "out"),
        Query(_list_price("output"), "out, list"),
        width=12,
        sort_by="blended",
    )
    sheet.lines(
        "Do we pay the list price?",
        "Cost of six hours of standard calls relative to the current list prices: 0 is equal, 2 % is an alert.",
        "percentunit",
        Query(
            'round(farebox:model_cost_usd:increase6h{provider=~"$provider", model=~"$model"}'
            ' / (farebox:model_list_cost_usd:increase6h{provider=~"$provider", model=~"$model"} > 0) - 1, 0.0001)',
            "{{provider}}/{{model}}",
        ),
        steps=((None, GREEN), (0.02, YELLOW), (0.1, RED)),
        around_zero=0.05,
    )
    week = f"sum by (event) (max by ({', '.join(SPENT)}) (increase({_COST}{{{ON_THESE}, {_M}}}[7d])))"
    week_before = week.replace("[7d]", "[7d] offset 7d")
    sheet.table(
        "What changed, week over week?",
        "Cost of the last seven days, and its ratio to the seven days before, if there were any.",
        "currencyUSD",
        Query(f"sort_desc({week})", "cost"),
        Query(f"{week} / ({week_before} > 0)", "times the week before"),
        width=16,
        sort_by="cost",
        units={"times the week before": "short"},
    )


def _customers(sheet: Sheet) -> None:
    sheet.row("Do customers have credits?")
    credits_in = (
        "3600 * sum by (source) (max by (source) (rate(farebox_credits_in_total{" + ON_THESE + "}[$__rate_interval])))"
    )
    sheet.lines(
        "Do deposits keep up with usage?",
        "Credits per hour: in by source, out by usage.",
        "short",
        Query(credits_in, "in: {{source}}"),
        Query(_an_hour(_CHARGED), "out"),
        width=6,
    )
    sheet.bars(
        "How are balances spread?",
        "Number of wallets by balance.",
        "short",
        *_balances(),
        width=6,
    )
    sheet.lines(
        "Which wallets will run dry?",
        "Wallets that run dry within a day or a week at their recent spending, and wallets in debt.",
        "short",
        Query(gauge("farebox_wallets_running_dry", ("within",)), "within {{within}}"),
        Query(gauge("farebox_wallets_below", (), 'credits="0"'), "in debt"),
        width=6,
    )
    sheet.table(
        "Which wallets use most?",
        "From the books: the ten wallets that were charged most over the time shown, with their cost.",
        "short",
        Sql(
            f"""
            SELECT u.wallet, u.calls, u.credits, u.cost_usd, a.balance_nano / 1e9 AS balance_credits
            FROM (SELECT tenant_id, wallet, count(*) AS calls, sum(charge_nanocredits) / 1e9 AS credits,
                         sum(cost_nanousd) / 1e9 AS cost_usd
                  FROM usage_records WHERE verdict = 'charged' AND {_SHOWN}
                  GROUP BY tenant_id, wallet ORDER BY credits DESC LIMIT 10) u
            LEFT JOIN accounts a ON a.tenant_id = u.tenant_id AND a.name = u.wallet AND a.kind = 'wallet'
            ORDER BY u.credits DESC
            """
        ),
        width=6,
        units={"cost_usd": "currencyUSD"},
    )


def _balances() -> list[Query]:
    """Numbers of wallets between neighbouring bounds."""

    def below(bound: int) -> str:
        return gauge("farebox_wallets_below", (), f'credits="{bound}"')

    between = [
        Query(f"{below(high)} - {below(low)}", f"{low} to {high}", instant=True)
        for low, high in itertools.pairwise(BALANCE_BOUNDS_CREDITS)
    ]
    richest = BALANCE_BOUNDS_CREDITS[-1]
    return [
        Query(below(0), "in debt", instant=True),
        *between,
        Query(f"{gauge('farebox_wallets')} - {below(richest)}", f"{richest} and more", instant=True),
    ]


def _plan(sheet: Sheet) -> None:
    sheet.row("Will budgets last, and are the graphs correct?")
    daily = f"sum by (dept) (max by ({', '.join(SPENT)}) (rate({_COST}{{{ON_THESE}, {_M}}}[1d])))"
    sheet.lines(
        "Will budgets last?",
        "Monthly cost at the rate of the last day, as a share of each department's budget. Over 100 % exceeds it.",
        "percentunit",
        Query(
            f"{daily} * 86400 * on () group_left () days_in_month()"
            f" / on (dept) {gauge('farebox_budget_usd', ('dept',))}",
            "{{dept}}",
        ),
        steps=((None, GREEN), (0.8, YELLOW), (1.0, RED)),
        width=12,
    )
    moved = ("cause", "direction")
    sheet.bars(
        "What was corrected, and why?",
        "Changes of cost by corrections over the time shown, by cause and direction.",
        "currencyUSD",
        Query(over_range("farebox_corrected_cost_usd_total", moved, moved), "{{cause}} {{direction}}", instant=True),
        width=6,
    )
    whole = "max by ({}) ({}{{{}}})"
    labels = ", ".join(SPENT)
    sheet.stat(
        "Do graphs and books agree?",
        "Total cost since the beginning, by counters and by records: equal to the nano-dollar, except for calls booked"
        " since the last scrape.",
        "currencyUSD",
        Query(
            f"sum({whole.format(labels, _COST, ON_THESE)})"
            f" - sum({whole.format(labels, 'farebox_reversed_cost_usd_total', ON_THESE)})",
            "counters",
            instant=True,
        ),
        Sql("SELECT sum(cost_nanousd) / 1e9 AS books FROM usage_records WHERE verdict = 'charged'", "B"),
        decimals=6,
        width=6,
        height=8,
    )
