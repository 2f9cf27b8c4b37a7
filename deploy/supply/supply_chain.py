"""`make sbom` and `make scan`: what the collector's image is made of, and whether a vulnerability of it is known.

    supply_chain.py sbom --output dist/sbom.json
    supply_chain.py scan

Both read deploy/requirements.lock. Their tools, cyclonedx-bom and pip-audit, come from requirements.lock beside this
file, with hashes, into an environment of their own. A scan that could not look at everything says "not scanned" and has
the status 2; it never says that nothing was found.
"""

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[1]
LOCK = REPOSITORY / "deploy/requirements.lock"
KNOWN_TO_BE_VULNERABLE = "jinja2==2.10"
"""CVE-2019-10906 and later: a source of data that does not know it knows nothing."""
CLEAN, VULNERABLE, NOT_SCANNED = 0, 1, 2
_SECONDS = 600


class NotScanned(Exception):
    """The scan did not look at everything; the message says what is missing."""


class Finding(NamedTuple):
    """A known vulnerability of a package in the lock."""

    package: str
    identifier: str
    fixed_in: str


def pins(lock: Path) -> dict[str, str]:
    """The packages of a lock that this machine would install, with their versions."""
    found: dict[str, str] = {}
    for line in lock.read_text(encoding="utf-8").splitlines():
        if "==" not in line or line.startswith((" ", "#")):
            continue
        requirement = Requirement(line.partition("--hash")[0].rstrip(" \\"))
        if requirement.marker is None or requirement.marker.evaluate():
            found[canonicalize_name(requirement.name)] = str(requirement.specifier).removeprefix("==")
    return found


def audited(tool: Sequence[str], requirements: Path) -> list[dict[str, Any]]:
    """What pip-audit says of each package of a file. Raises NotScanned when it says nothing."""
    with tempfile.TemporaryDirectory() as directory:
        report = Path(directory) / "report.json"
        command = [*tool, "--requirement", str(requirements), "--disable-pip", "--no-deps", "--vulnerability-service"]
        command += ["osv", "--progress-spinner", "off", "--format", "json", "--output", str(report)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise NotScanned(f"pip-audit did not end: {error}") from None
        last_words = done.stderr.strip().splitlines()[-1:] or ["no report"]
        try:
            packages = json.loads(report.read_text(encoding="utf-8"))["dependencies"]
            assert all(isinstance(package["name"], str) for package in packages)
        except (OSError, ValueError, KeyError, TypeError, AssertionError):
            raise NotScanned(f"pip-audit has no data: {last_words[0]}") from None
    return list(packages)


def scan(tool: Sequence[str], lock: Path = LOCK) -> list[Finding]:
    """The known vulnerabilities of the packages of a lock. Raises NotScanned unless every package was looked up."""
    with tempfile.TemporaryDirectory() as directory:
        canary = Path(directory) / "requirements.txt"
        canary.write_text(f"{KNOWN_TO_BE_VULNERABLE}\n", encoding="utf-8")
        if not any(package.get("vulns") for package in audited(tool, canary)):
            raise NotScanned(f"the source of data knows no vulnerability of {KNOWN_TO_BE_VULNERABLE}, which has some")
    packages = audited(tool, lock)
    looked_up = {
        (canonicalize_name(package["name"]), package.get("version")) for package in packages if "vulns" in package
    }
    missing = sorted(f"{name}=={version}" for name, version in pins(lock).items() if (name, version) not in looked_up)
    if missing:
        raise NotScanned(f"{len(missing)} packages were not looked up: {', '.join(missing[:10])}")
    return [
        Finding(
            f"{package['name']}=={package['version']}", found["id"], ", ".join(found.get("fix_versions", ())) or "none"
        )
        for package in packages
        for found in package.get("vulns", ())
    ]


def report_scan(tool: Sequence[str], lock: Path = LOCK) -> int:
    """Scan, print what was found, and return the status."""
    try:
        findings = scan(tool, lock)
    except NotScanned as error:
        print(f"not scanned: {error}")
        return NOT_SCANNED
    for finding in findings:
        print(f"{finding.package}: {finding.identifier}, fixed in {finding.fixed_in}")
    if not findings:
        print(f"no known vulnerability in the {len(pins(lock))} packages of {lock.name}")
    return VULNERABLE if findings else CLEAN


def write_sbom(tool: Sequence[str], output: Path, lock: Path = LOCK) -> None:
    """Write a CycloneDX document of the packages of a lock, with their hashes. Raises CalledProcessError."""
    output.parent.mkdir(parents=True, exist_ok=True)
    described = ["--pyproject", str(REPOSITORY / "pyproject.toml"), "--output-reproducible", "--output-format", "JSON"]
    subprocess.run([*tool, "requirements", str(lock), *described, "--output-file", str(output)], check=True)
    written = {part["name"] for part in json.loads(output.read_text(encoding="utf-8"))["components"]}
    missing = sorted(set(pins(lock)) - {canonicalize_name(name) for name in written})
    if missing:
        sys.exit(f"the SBOM lacks {', '.join(missing)}")
    print(f"{output}: {len(written)} packages")


def tools() -> Path:
    """Where the programs of both tools are, installed the first time. Raises CalledProcessError."""
    requirements = HERE / "requirements.lock"
    digest = hashlib.sha256(requirements.read_bytes()).hexdigest()[:12]
    home = REPOSITORY / ".venv" / f"supply-{digest}"
    if not (home / "made").exists():
        subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
        install = [str(home / "bin/python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        install += ["--require-hashes", "--only-binary", ":all:", "--no-deps", "--requirement", str(requirements)]
        subprocess.run(install, check=True)
        (home / "made").touch()
    return home / "bin"


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("sbom", "scan"))
    parser.add_argument("--output", type=Path, default=REPOSITORY / "dist/sbom.json")
    options = parser.parse_args()
    try:
        programs = tools()
    except subprocess.CalledProcessError:
        print("not scanned: the tools could not be installed" if options.command == "scan" else "no SBOM was written")
        sys.exit(NOT_SCANNED)
    if options.command == "sbom":
        write_sbom([str(programs / "cyclonedx-py")], options.output)
    else:
        sys.exit(report_scan([str(programs / "pip-audit")]))


if __name__ == "__main__":
    main()
