"""`make scan` never says that nothing was found where it did not look; a script stands in for pip-audit."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).parents[2]
sys.path.append(str(REPOSITORY / "deploy/supply"))

import supply_chain  # noqa: E402

STAND_IN = """
import json, sys
arguments = dict(zip(sys.argv[1:], sys.argv[2:]))
told = open(arguments["--requirement"]).read()
answer = json.loads({answers!r})["canary" if {canary!r} in told else "lock"]
sys.stderr.write("the network is not there\\n")
if answer is not None:
    open(arguments["--output"], "w").write(answer)
sys.exit(1)
"""
LOCK = """
alpha==1.0 \\
    --hash=sha256:00
beta-b==2.0 ; python_full_version >= '3.0' \\
    --hash=sha256:00
gamma==3.0 ; python_full_version < '3.0' \\
    --hash=sha256:00
    # via alpha
"""
BAD = {"id": "CVE-2026-1", "fix_versions": ["1.1"]}
CANARY = [{"name": "jinja2", "version": "2.10", "vulns": [BAD]}]
FINE = [{"name": "alpha", "version": "1.0", "vulns": []}, {"name": "Beta_B", "version": "2.0", "vulns": []}]


def report(packages: list[dict[str, Any]]) -> str:
    return json.dumps({"dependencies": packages, "fixes": []})


def scanned(
    directory: Path, capsys: pytest.CaptureFixture[str], lock_answer: str | None, canary_answer: str | None
) -> tuple[int, str]:
    """The status and the output of a scan in which pip-audit answers so."""
    script = directory / "pip_audit.py"
    answers = json.dumps({"lock": lock_answer, "canary": canary_answer})
    script.write_text(STAND_IN.format(answers=answers, canary=supply_chain.KNOWN_TO_BE_VULNERABLE), encoding="utf-8")
    lock = directory / "requirements.lock"
    lock.write_text(LOCK, encoding="utf-8")
    status = supply_chain.report_scan([sys.executable, str(script)], lock)
    return status, capsys.readouterr().out


def test_a_whole_scan_says_what_it_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, said = scanned(tmp_path, capsys, report(FINE), report(CANARY))
    assert (status, said) == (0, "no known vulnerability in the 2 packages of requirements.lock\n")
    bad: list[dict[str, Any]] = [{**FINE[0], "vulns": [BAD]}, FINE[1]]
    status, said = scanned(tmp_path, capsys, report(bad), report(CANARY))
    assert (status, said) == (1, "alpha==1.0: CVE-2026-1, fixed in 1.1\n")


@pytest.mark.parametrize(
    ("lock_answer", "canary_answer"),
    [
        (None, None),
        (None, report(CANARY)),
        ("", report(CANARY)),
        ("not json", report(CANARY)),
        ("[]", report(CANARY)),
        ("{}", report(CANARY)),
        ('{"dependencies": null}', report(CANARY)),
        (report([]), report(CANARY)),
        (report(FINE[:1]), report(CANARY)),
        (report([FINE[0], {"name": "beta-b", "skip_reason": "not found"}]), report(CANARY)),
        (report([FINE[0], {**FINE[1], "version": "2.1"}]), report(CANARY)),
        (report(FINE), report([{**CANARY[0], "vulns": []}])),
        (report(FINE), report([])),
        (report(FINE), None),
    ],
    ids=[
        "no network",
        "network went",
        "empty file",
        "not json",
        "a list",
        "no packages",
        "null",
        "nothing looked up",
        "one missing",
        "one skipped",
        "another version",
        "data without vulnerabilities",
        "data without packages",
        "no data",
    ],
)
def test_a_scan_that_did_not_look_at_everything_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], lock_answer: str | None, canary_answer: str | None
) -> None:
    status, said = scanned(tmp_path, capsys, lock_answer, canary_answer)
    assert status == 2
    assert said.startswith("not scanned: ")
    assert "no known" not in said


def test_a_tool_that_is_not_there_is_no_scan(capsys: pytest.CaptureFixture[str]) -> None:
    assert supply_chain.report_scan(["/nowhere/pip-audit"]) == 2
    assert capsys.readouterr().out.startswith("not scanned: ")


def test_the_lock_of_the_image_is_read_whole() -> None:
    text = (REPOSITORY / "deploy/requirements.lock").read_text(encoding="utf-8")
    assert len(supply_chain.pins(supply_chain.LOCK)) >= text.count("==") - text.count(" ; ") - text.count("==3.")
    assert supply_chain.pins(supply_chain.LOCK)["alembic"]


def test_the_tools_are_pinned_with_hashes() -> None:
    wanted = (REPOSITORY / "deploy/supply/requirements.in").read_text(encoding="utf-8").split()
    lock = (REPOSITORY / "deploy/supply/requirements.lock").read_text(encoding="utf-8")
    pinned = [line for line in lock.splitlines() if "==" in line and not line.startswith(" ")]
    assert all(any(line.startswith(one) for line in pinned) for one in wanted)
    assert lock.count("\n    --hash=sha256:") >= len(pinned)


def test_an_sbom_that_lacks_a_package_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tool = tmp_path / "cyclonedx.py"
    lock = tmp_path / "requirements.lock"
    lock.write_text(LOCK, encoding="utf-8")
    for names in (["alpha", "Beta_B"], ["alpha"]):
        document = json.dumps({"components": [{"name": name} for name in names]})
        tool.write_text(f"import sys\nopen(sys.argv[-1], 'w').write({document!r})\n", encoding="utf-8")
        if len(names) == 2:
            supply_chain.write_sbom([sys.executable, str(tool)], tmp_path / "dist/sbom.json", lock)
            assert "2 packages" in capsys.readouterr().out
        else:
            with pytest.raises(SystemExit, match="lacks beta-b"):
                supply_chain.write_sbom([sys.executable, str(tool)], tmp_path / "dist/sbom.json", lock)
