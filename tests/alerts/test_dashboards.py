"""The dashboards as Grafana imports them: the JSON is the code's, and follows the rules of grafana/dashboard-linter."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from farebox_collector.metrics import catalogue
from farebox_collector.metrics.catalogue import CATALOGUE, Kind
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard as models
from render import BOARDS, rendered

REPOSITORY = Path(__file__).parents[2]
MACROS = re.compile(r"\$__(rate_interval|range)\b")
# Two readings of a counter that never falls, subtracted: see `building.over_range`.
DIFFERENCE = re.compile(r"max by \([^)]*\) \(farebox_\w+\{[^}]*\}\) - \(max by")
WHOLE = "Do graphs and books agree?"


def board(name: str) -> dict[str, Any]:
    return json.loads((REPOSITORY / "dashboards" / name).read_text(encoding="utf-8"))  # type: ignore[no-any-return]


def panels(name: str) -> list[dict[str, Any]]:
    return [panel for panel in board(name)["panels"] if panel["type"] != "row"]


def expressions(name: str) -> Iterator[tuple[str, str]]:
    for panel in panels(name):
        for target in panel["targets"]:
            if "expr" in target:
                yield panel["title"], target["expr"]


def labels_of(metric: str) -> set[str]:
    """The labels that a metric, or a part of a histogram or summary, is exported with, and scraped under."""
    families = {family.name: family for family in CATALOGUE}
    family = families.get(metric) or families[re.sub(r"_(bucket|count|sum)$", "", metric)]
    return {*family.labels, "job", "instance"}


def labels_of_recorded(name: str) -> set[str]:
    """The labels that a recording rule keeps."""
    document = yaml.safe_load((REPOSITORY / "alerts/recording.yml").read_text(encoding="utf-8"))
    exprs = {rule["record"]: rule["expr"] for group in document["groups"] for rule in group["rules"]}
    (by, *_) = re.findall(r"by \(([^)]*)\)", exprs[name])
    return set(by.split(", "))


def selectors(expr: str) -> list[tuple[str, str]]:
    """Metrics with their matchers."""
    return re.findall(r"(farebox_\w+)\{([^}]*)\}", expr)


each_board = pytest.mark.parametrize("name", BOARDS)


@each_board
def test_the_json_is_what_the_code_renders(name: str) -> None:
    assert (REPOSITORY / "dashboards" / name).read_text(encoding="utf-8") == rendered(name), "run `make dashboards`"


@each_board
def test_grafanas_own_types_read_it_and_lose_nothing(name: str) -> None:
    read = json.loads(json.dumps(models.Dashboard.from_json(board(name)), cls=JSONEncoder))
    assert read == board(name)


@each_board
def test_a_dashboard_is_small_read_only_stable_and_linked(name: str) -> None:
    made = board(name)
    assert len(panels(name)) <= 20
    assert made["editable"] is False
    assert made["uid"] == f"farebox-{name.removesuffix('.json')}"
    assert (made["timezone"], made["graphTooltip"], made["schemaVersion"]) == ("utc", 1, 42)
    (link,) = made["links"]
    assert link["includeVars"]
    assert link["keepTime"]
    assert link["url"].removeprefix("/d/farebox-") + ".json" in BOARDS
    ids = [panel["id"] for panel in made["panels"]]
    assert len(ids) == len(set(ids))


@each_board
def test_templates_name_source_job_and_instance_and_follow_the_time(name: str) -> None:
    variables = {variable["name"]: variable for variable in board(name)["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    assert variables["datasource"]["query"] == "prometheus"
    assert {"job", "instance"} <= set(variables)
    for variable in variables.values():
        if variable["type"] == "query":
            assert variable["datasource"]["uid"] == "${datasource}"
            told = re.fullmatch(r"label_values\((farebox_\w+)(?:\{([^}]*)\})?, (\w+)\)", variable["query"])
            assert told, variable["query"]
            metric, matchers, label = told.groups()
            assert {label, *re.findall(r"(\w+)=~?", matchers or "")} <= labels_of(metric), variable["query"]
            assert variable["refresh"] == 2, "on time range change"


@each_board
def test_each_panel_is_a_question_with_a_unit_and_a_source(name: str) -> None:
    titles = []
    for panel in panels(name):
        titles.append(panel["title"])
        assert panel["title"].endswith("?")
        assert len(panel["description"]) > 20
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
        assert panel["datasource"]["uid"] in ("${datasource}", "${books}", "-- Mixed --")
        assert panel["targets"]
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
        for target in panel["targets"]:
            assert target["datasource"]["uid"] == ("${datasource}" if "expr" in target else "${books}")
    assert len(titles) == len(set(titles))


@each_board
def test_panels_do_not_overlap(name: str) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in board(name)["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        assert all(x < 24 for x, _ in cells)
        taken |= cells


@each_board
def test_each_query_names_job_and_instance_and_metrics_that_exist(name: str) -> None:
    kinds = {metric.name: metric for metric in CATALOGUE}
    for title, expr in expressions(name):
        for metric, matchers in selectors(expr):
            assert 'job=~"$job"' in matchers, title
            assert 'instance=~"$instance"' in matchers, title
            family = kinds.get(metric) or kinds[re.sub(r"_(bucket|count|sum)$", "", metric)]
            named = set(re.findall(r"(\w+)=~?", matchers)) - {"job", "instance"}
            assert named <= set(family.labels), f"{title}: {metric} has no {named - set(family.labels)}"


@each_board
def test_legends_name_labels_that_their_query_keeps(name: str) -> None:
    for panel in panels(name):
        for target in panel["targets"]:
            named = set(re.findall(r"\{\{(\w+)\}\}", target.get("legendFormat", "")))
            if named:
                kept = {label for by in re.findall(r"by \(([^)]*)\)", target["expr"]) for label in by.split(", ")}
                recorded = re.findall(r"\b(farebox:\w+:\w+)", target["expr"])
                kept |= {label for record in recorded for label in labels_of_recorded(record)}
                assert named <= kept, f"{panel['title']}: {named - kept}"


@each_board
def test_counters_are_looked_at_by_their_growth_over_a_fitting_interval(name: str) -> None:
    counters = {metric.name for metric in CATALOGUE if metric.kind is Kind.COUNTER}
    for title, expr in expressions(name):
        if title == WHOLE:
            continue
        for found in re.finditer(r"(farebox_\w+)\{[^}]*\}", expr):
            metric = found.group(1)
            if metric not in counters and not metric.endswith(("_bucket", "_count", "_sum")):
                continue
            grown = re.search(r"(rate|increase)\($", expr[: found.start()])
            assert grown or DIFFERENCE.search(expr), f"{title}: {metric}"
        for window in re.findall(r"rate\([^[]*\[([^\]]+)\]", expr):
            assert window in ("$__rate_interval", "1d"), title


def test_every_query_is_promql(tmp_path: Path) -> None:
    rules: list[dict[str, Any]] = []
    for name in BOARDS:
        made = [expr for _, expr in expressions(name)]
        made += [mark["expr"] for mark in board(name)["annotations"]["list"]]
        rules += [{"record": f"parsed:{len(rules) + n}", "expr": MACROS.sub("5m", e)} for n, e in enumerate(made)]
    path = tmp_path / "parsed.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "parsed", "rules": rules}]}), encoding="utf-8")
    done = subprocess.run(["promtool", "check", "rules", path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(rules)} rules found" in done.stdout


def test_every_metric_is_in_the_catalogue() -> None:
    declared = [value for value in vars(catalogue).values() if isinstance(value, catalogue.Metric)]
    assert {metric.name for metric in declared} == {metric.name for metric in CATALOGUE}


def test_every_label_that_a_rule_looks_at_is_one_that_is_exported() -> None:
    labels = {metric.name: set(metric.labels) | {"job", "instance"} for metric in CATALOGUE}
    for path in (REPOSITORY / "alerts").glob("*.yml"):
        for group in (yaml.safe_load(path.read_text(encoding="utf-8")) or {}).get("groups", ()):
            for rule in group["rules"]:
                for metric in re.findall(r"\b(farebox_\w+)", re.sub(r"#.*", "", rule["expr"])):
                    assert re.sub(r"_(bucket|count|sum)$", "", metric) in labels or metric in labels, rule
                for metric, matchers in selectors(rule["expr"]):
                    family = metric if metric in labels else re.sub(r"_(bucket|count|sum)$", "", metric)
                    assert set(re.findall(r"(\w+)(?:!|=)", matchers)) <= labels[family] | {"le"}, rule
