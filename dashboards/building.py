"""Parts of both dashboards: variables, panels, and queries over metrics that several collectors read from one ledger.

Panels are placed in rows of 24 columns. Ids and reference letters are counters, so that the JSON is reproducible.
"""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from grafana_foundation_sdk.builders import bargauge, common, dashboard, prometheus, stat, table, timeseries
from grafana_foundation_sdk.cog import variants
from grafana_foundation_sdk.models import common as common_models
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models import prometheus as prometheus_models

PROMETHEUS = models.DataSourceRef(type_val="prometheus", uid="${datasource}")
BOOKS = models.DataSourceRef(type_val="grafana-postgresql-datasource", uid="${books}")
MIXED = models.DataSourceRef(type_val="datasource", uid="-- Mixed --")
SPENT = ("event", "provider", "model", "dept", "project", "task")
PRICED = ("provider", "model", "tier", "kind")
SERVED = ("provider", "model", "route", "region")
ON_THESE = 'job=~"$job", instance=~"$instance"'
NO_UNITS: Mapping[str, str] = {}
GREEN, YELLOW, RED = "green", "yellow", "red"


class Sql(variants.Dataquery):
    """A query of Grafana's own PostgreSQL data source, as a table."""

    def __init__(self, sql: str, ref_id: str = "A") -> None:
        self._sql = " ".join(sql.split())
        self._ref_id = ref_id

    def build(self) -> Sql:
        """Return self, for builders that expect a builder."""
        return self

    def to_json(self) -> dict[str, object]:
        """Return the query in Grafana's form."""
        return {
            "refId": self._ref_id,
            "datasource": BOOKS,
            "editorMode": "code",
            "format": "table",
            "rawQuery": True,
            "rawSql": self._sql,
        }


class Query(NamedTuple):
    """One query of a panel: PromQL and the name of its series or column; `instant` returns one value at the end."""

    expr: str
    legend: str = "__auto"
    instant: bool = False
    exemplars: bool = False


def rate(metric: str, labels: Sequence[str], by: Sequence[str] = (), matching: str = "", window: str = "") -> str:
    """Rate per second of a ledger counter, by labels. All collectors report the same value, so take the maximum."""
    return _grown("rate", metric, labels, by, matching, window or "$__rate_interval")


def over_range(metric: str, labels: Sequence[str], by: Sequence[str] = (), matching: str = "") -> str:
    """Exact increase of a ledger counter over the time shown.

    These counters never reset and begin at their first unit, so the difference of two readings is exact. `increase`
    would extrapolate, and miss the first step of a new series.
    """
    chosen = f"{metric}{{{_selector(matching)}}}"
    inner = ", ".join(labels)
    now = f"max by ({inner}) ({chosen})"
    before = f"(max by ({inner}) ({metric}{{{_selector(matching)}}} offset $__range) or {now} * 0)"
    return f"sum{_by(by)} ({now} - {before})"


def own_rate(metric: str, by: Sequence[str] = (), matching: str = "") -> str:
    """Rate per second of a process's counter, summed over collectors."""
    return f"sum{_by(by)} (rate({metric}{{{_selector(matching)}}}[$__rate_interval]))"


def quantile(q: float, metric: str, by: Sequence[str] = (), matching: str = "") -> str:
    """A quantile of a ledger histogram."""
    return f"histogram_quantile({q}, {rate(f'{metric}_bucket', ('le', *SERVED), ('le', *by), matching)})"


def gauge(metric: str, by: Sequence[str] = (), matching: str = "") -> str:
    """A gauge that is equal on every collector."""
    return f"max{_by(by)} ({metric}{{{_selector(matching)}}})"


def _grown(function: str, metric: str, labels: Sequence[str], by: Sequence[str], matching: str, window: str) -> str:
    counted = f"{function}({metric}{{{_selector(matching)}}}[{window}])"
    return f"sum{_by(by)} (max by ({', '.join(labels)}) ({counted}))"


def _selector(matching: str) -> str:
    return f"{ON_THESE}, {matching}" if matching else ON_THESE


def _by(labels: Sequence[str]) -> str:
    return f" by ({', '.join(labels)})" if labels else ""


def new_board(uid: str, title: str, description: str, other: tuple[str, str]) -> dashboard.Dashboard:
    """Create an empty, read-only dashboard in UTC that links to the other one with its variables and time range."""
    other_uid, other_title = other
    return (
        dashboard.Dashboard(title)
        .uid(uid)
        .description(description)
        .tags(["farebox"])
        .readonly()
        .timezone("utc")
        .refresh("30s")
        .time("now-6h", "now")
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .link(
            dashboard.DashboardLink(other_title)
            .type(models.DashboardLinkType.LINK)
            .url(f"/d/{other_uid}")
            .include_vars(True)
            .keep_time(True)
        )
        .with_variable(
            dashboard.DatasourceVariable("datasource")
            .label("Prometheus")
            .type("prometheus")
            .current(_default("Prometheus"))
        )
        .with_variable(_labels("job", "Job", "label_values(farebox_build_info, job)"))
        .with_variable(_labels("instance", "Collector", 'label_values(farebox_build_info{job=~"$job"}, instance)'))
        .annotation(_mark("Price book", "blue", f"changes(farebox_price_book_edition{{{ON_THESE}}}[5m]) > 0"))
        .annotation(_mark("Charge rules", "purple", f"changes(farebox_charge_rule_edition{{{ON_THESE}}}[5m]) > 0"))
        .annotation(
            _mark(
                "Version",
                "green",
                f"count by (version) (farebox_build_info{{{ON_THESE}}})"
                f" unless count by (version) (farebox_build_info{{{ON_THESE}}} offset 5m)",
            )
        )
        .annotation(
            _mark("Incident", "red", 'ALERTS{alertname=~"Farebox.+", alertstate="firing", severity="critical"}')
        )
    )


def narrowed_by(board: dashboard.Dashboard, metric: str, names: Sequence[str]) -> dashboard.Dashboard:
    """Add a variable for each label, with all values selected."""
    for name in names:
        query = f'label_values({metric}{{job=~"$job"}}, {name})'
        board = board.with_variable(_labels(name, name.capitalize(), query))
    return board


def matching(names: Sequence[str]) -> str:
    """The matchers for the variables that `narrowed_by` adds."""
    return ", ".join(f'{name}=~"${name}"' for name in names)


def _labels(name: str, label: str, query: str) -> dashboard.QueryVariable:
    return (
        dashboard.QueryVariable(name)
        .label(label)
        .datasource(PROMETHEUS)
        .query(query)
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        # Match series without this label too.
        .all_value(".*")
        .current(models.VariableOption(selected=True, text="All", value="$__all"))
    )


def _default(text: str) -> models.VariableOption:
    return models.VariableOption(selected=True, text=text, value=text.lower())


def _mark(name: str, color: str, expr: str) -> dashboard.AnnotationQuery:
    return dashboard.AnnotationQuery().name(name).datasource(PROMETHEUS).enable(True).icon_color(color).expr(expr)


class Sheet:
    """Place panels on a dashboard, from left to right and row by row."""

    def __init__(self, board: dashboard.Dashboard) -> None:
        self.board = board
        self._id = 0
        self._x = self._y = self._height = 0

    def row(self, question: str) -> None:
        """Begin a row, titled with the question that its panels answer."""
        self._next_line()
        self._id += 1
        self.board = self.board.with_row(
            dashboard.Row(question).id(self._id).grid_pos(models.GridPos(h=1, w=24, x=0, y=self._y))
        )
        self._y += 1

    def stat(
        self,
        title: str,
        description: str,
        unit: str,
        *queries: Query | Sql,
        steps: Sequence[tuple[float | None, str]] = ((None, GREEN),),
        decimals: int | None = None,
        width: int = 4,
        height: int = 4,
    ) -> None:
        """Add one or a few figures, coloured by thresholds."""
        made = (
            stat.Panel()
            .graph_mode(common_models.BigValueGraphMode.NONE)
            .color_mode(common_models.BigValueColorMode.VALUE)
        )
        made = made.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        if decimals is not None:
            made = made.decimals(decimals)
        self._place(made, title, description, unit, queries, steps, width, height)

    def lines(
        self,
        title: str,
        description: str,
        unit: str,
        *queries: Query,
        steps: Sequence[tuple[float | None, str]] = ((None, GREEN),),
        width: int = 8,
        stacked: bool = False,
        around_zero: float = 0.0,
    ) -> None:
        """Add series over time. With `around_zero`, values may be negative and the axis reaches at least that far."""
        legend = (
            common.VizLegendOptions()
            .display_mode(common_models.LegendDisplayMode.TABLE)
            .placement(common_models.LegendPlacement.BOTTOM)
            .show_legend(True)
            .calcs(["mean", "lastNotNull"])
        )
        tooltip = common.VizTooltipOptions().mode(common_models.TooltipDisplayMode.MULTI)
        made = timeseries.Panel().legend(legend).tooltip(tooltip).fill_opacity(20 if stacked else 5).line_width(1)
        made = made.axis_soft_min(-around_zero).axis_soft_max(around_zero) if around_zero else made.min(0)
        if stacked:
            made = made.stacking(common.StackingConfig().mode(common_models.StackingMode.NORMAL))
        self._place(made, title, description, unit, queries, steps, width, 8)

    def bars(self, title: str, description: str, unit: str, *queries: Query, width: int = 8) -> None:
        """Add figures as bars."""
        made = bargauge.Panel().orientation(common_models.VizOrientation.HORIZONTAL)
        made = made.display_mode(common_models.BarGaugeDisplayMode.BASIC)
        self._place(made, title, description, unit, queries, ((None, GREEN),), width, 8)

    def table(
        self,
        title: str,
        description: str,
        unit: str,
        *queries: Query | Sql,
        width: int = 8,
        sort_by: str = "",
        units: Mapping[str, str] = NO_UNITS,
    ) -> None:
        """Add a table. Several queries are merged by their labels; `units` maps columns to units other than `unit`."""
        made = table.Panel()
        if len(queries) > 1:
            made = made.with_transformation(models.DataTransformerConfig(id_val="merge", options={}))
        columns = _columns(queries)
        if columns:
            options = {"excludeByName": {"Time": True}, "renameByName": columns}
            made = made.with_transformation(models.DataTransformerConfig(id_val="organize", options=options))
        for column, other in units.items():
            made = made.override_by_name(column, [models.DynamicConfigValue("unit", other)])
        if sort_by:
            made = made.sort_by([common.TableSortByFieldState().display_name(sort_by).desc(True)])
        self._place(made, title, description, unit, queries, ((None, GREEN),), width, 8)

    def _place(
        self,
        made: Any,
        title: str,
        description: str,
        unit: str,
        queries: Sequence[Query | Sql],
        steps: Sequence[tuple[float | None, str]],
        width: int,
        height: int,
    ) -> None:
        if self._x + width > 24:
            self._next_line()
        self._id += 1
        kinds = {isinstance(query, Sql) for query in queries}
        source = MIXED if len(kinds) > 1 else BOOKS if kinds == {True} else PROMETHEUS
        thresholds = dashboard.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE)
        made = (
            made.id(self._id)
            .title(title)
            .description(description)
            .datasource(source)
            .unit(unit)
            .thresholds(thresholds.steps([models.Threshold(value=value, color=color) for value, color in steps]))
            .grid_pos(models.GridPos(h=height, w=width, x=self._x, y=self._y))
        )
        as_table = isinstance(made, table.Panel)
        for letter, query in zip(string.ascii_uppercase, queries, strict=False):
            made = made.with_target(query if isinstance(query, Sql) else _target(query, letter, as_table))
        self.board = self.board.with_panel(made)
        self._x += width
        self._height = max(self._height, height)

    def _next_line(self) -> None:
        self._y += self._height
        self._x = self._height = 0


def _columns(queries: Sequence[Query | Sql]) -> dict[str, str]:
    """Map Grafana's name of each query's value to its title."""
    values = ["Value"] if len(queries) == 1 else [f"Value #{letter}" for letter in string.ascii_uppercase]
    named = zip(values, queries, strict=False)
    return {value: query.legend for value, query in named if isinstance(query, Query)}


def _target(query: Query, letter: str, as_table: bool) -> prometheus.Dataquery:
    made = prometheus.Dataquery().expr(query.expr).legend_format(query.legend).ref_id(letter).datasource(PROMETHEUS)
    if as_table:
        made = made.format(prometheus_models.PromQueryFormat.TABLE)
    if query.exemplars:
        made = made.exemplar(True)
    return made.instant() if query.instant or as_table else made.range()
