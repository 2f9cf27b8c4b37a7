"""The rules as Prometheus and Alertmanager read them: each fires when it should, and keeps quiet when it should not."""

import re
import shutil
import subprocess
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import yaml

REPOSITORY = Path(__file__).parents[2]
ALERTS = REPOSITORY / "alerts"
RULE_FILES = ("recording.yml", "spending.yml", "service.yml", "metering.yml")
CASES = sorted((ALERTS / "tests").glob("*.yml"))
SEVERITIES = {"critical", "warning", "info", "none"}
TEAMS = {"finance", "product", "oncall"}


def tool(name: str) -> str:
    """A program of Prometheus; that there is one was looked at before."""
    return shutil.which(name) or name


def run(*command: str | Path) -> str:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, cwd=ALERTS)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def rules() -> list[dict[str, Any]]:
    documents = [yaml.safe_load((ALERTS / name).read_text(encoding="utf-8")) for name in RULE_FILES]
    return [rule for document in documents for group in document["groups"] for rule in group["rules"]]


def alerts() -> dict[str, dict[str, Any]]:
    return {rule["alert"]: rule for rule in rules() if "alert" in rule}


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_rules_fire_and_keep_quiet_as_their_cases_say(path: Path) -> None:
    assert "SUCCESS" in run(tool("promtool"), "test", "rules", path)


def test_each_alert_has_a_case_that_fires_and_a_near_miss() -> None:
    cases: defaultdict[str, set[bool]] = defaultdict(set)
    for path in CASES:
        for case in yaml.safe_load(path.read_text(encoding="utf-8"))["tests"]:
            for check in case["promql_expr_test"]:
                for name in re.findall(r'ALERTS\{alertname="(\w+)"', check["expr"]):
                    cases[name].add(bool(check["exp_samples"]))
    assert {name for name, outcomes in cases.items() if outcomes == {True, False}} == set(alerts()) - {"Watchdog"}
    assert cases["Watchdog"] == {True}


def test_the_configuration_is_what_prometheus_and_alertmanager_read() -> None:
    checked = run(tool("promtool"), "check", "config", "prometheus.yml")
    assert "FAILED" not in checked
    assert all(f"Checking {name}" in checked for name in RULE_FILES)
    assert "SUCCESS" in run(tool("amtool"), "check-config", "alertmanager.yml")


def test_each_alert_says_what_where_and_to_whom() -> None:
    runbook = (REPOSITORY / "docs/how-to/runbook.md").read_text(encoding="utf-8")
    sections = {heading.lower() for heading in re.findall(r"^### (\w+)$", runbook, re.MULTILINE)}
    for name, rule in alerts().items():
        assert rule["labels"]["severity"] in SEVERITIES
        assert rule["labels"]["team"] in TEAMS
        annotations = rule["annotations"]
        assert set(annotations) == {"summary", "description", "runbook_url", "dashboard_url"}, name
        assert annotations["runbook_url"].endswith(f"/runbook.md#{name.lower()}")
        assert name.lower() in sections, f"the runbook has no section {name}"
        if name not in ("Watchdog", "FareboxTargetDown"):
            assert "$value" in annotations["description"], f"{name} does not say its figure"
    assert sections == {name.lower() for name in alerts()}


def test_no_metric_is_looked_at_that_nobody_records() -> None:
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    used = {name for rule in rules() for name in re.findall(r"farebox:[a-z_]+:[a-z0-9]+", rule["expr"])}
    assert used <= recorded
    dashboards = "".join(path.read_text(encoding="utf-8") for path in (REPOSITORY / "dashboards").glob("*.py"))
    assert {name for name in recorded if name not in used and name not in dashboards} == set()


@pytest.mark.parametrize(
    ("labels", "receivers"),
    [
        ("alertname=Watchdog severity=none team=oncall", "watchdog"),
        ("alertname=FareboxTargetDown severity=critical team=oncall", "incidents,pager,none"),
        ("alertname=FareboxCostSpike severity=critical team=finance", "incidents,pager,finance"),
        ("alertname=FareboxUnpriced severity=warning team=finance", "incidents,finance"),
        ("alertname=FareboxCacheCollapse severity=warning team=oncall", "incidents,chat"),
        ("alertname=FareboxEventDoubled severity=info team=product", "chat"),
    ],
)
def test_alerts_reach_those_who_can_do_something(labels: str, receivers: str) -> None:
    command = ("config", "routes", "test", "--config.file=alertmanager.yml", f"--verify.receivers={receivers}")
    run(tool("amtool"), *command, *labels.split())
