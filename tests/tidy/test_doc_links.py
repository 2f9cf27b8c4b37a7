"""Pages: relative links lead to a file and a heading, every page is in the index, and the words are plain."""

import re
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
_CODE = re.compile(r"^(`{3,}).*?^\1`*$|`[^`\n]*`", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"!?\[(?:[^\[\]]|\[[^\]]*\])*\]\(\s*<?([^()\s>]+(?:\([^()\s]*\)[^()\s]*)*)>?(?:\s+\"[^\"]*\")?\s*\)")
_OUTSIDE = re.compile(r"[a-z][a-z0-9+.-]*:|//", re.IGNORECASE)


def pages() -> list[str]:
    """The Markdown files that git tracks, or would, by their path in the repository."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"]
    listed = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    return sorted(name for name in listed.stdout.splitlines() if (REPOSITORY / name).exists())


def links(text: str) -> list[str]:
    """The targets of links to places in the repository. What stands in code is no link, a code text of a link is."""
    without_code = _CODE.sub(lambda found: "" if found[1] else "`code`", text)
    return [target for target in _LINK.findall(without_code) if not _OUTSIDE.match(target)]


def anchors(text: str) -> set[str]:
    """The anchors that GitHub gives the headings of a page; repetitions get -1, -2 and so on."""
    found: dict[str, int] = {}
    outside_fences = re.sub(r"^(`{3,}).*?^\1`*$", "", text, flags=re.MULTILINE | re.DOTALL)
    for heading in re.findall(r"^#{1,6} +(.+?) *#*$", outside_fences, re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").strip().lower()
        anchor = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        found[anchor] = found.get(anchor, -1) + 1
    return {
        anchor if number == 0 else f"{anchor}-{number}" for anchor, last in found.items() for number in range(last + 1)
    }


def broken(page: Path) -> list[str]:
    """The links of a page that lead nowhere."""
    wrong = []
    for target in links(page.read_text(encoding="utf-8")):
        path, _, anchor = target.partition("#")
        place = page if not path else (page.parent / path).resolve()
        exists = place.exists() and place.is_relative_to(REPOSITORY)
        if exists and anchor and place.suffix == ".md":
            exists = anchor in anchors(place.read_text(encoding="utf-8"))
        if not exists:
            wrong.append(target)
    return wrong


@pytest.mark.parametrize("page", pages())
def test_links_of_pages_lead_somewhere(page: str) -> None:
    assert broken(REPOSITORY / page) == []


def test_a_link_that_leads_nowhere_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{__name__}.REPOSITORY", tmp_path)
    (tmp_path / "other.md").write_text("# One `thing`, and more\n```\n# no heading\n```\n", encoding="utf-8")
    page = tmp_path / "page.md"
    page.write_text(
        "[a](missing.md) [`b`](other.md#one-thing-and-more) [c](other.md#no-heading) ![d](missing.svg) [e](../x)\n"
        "`[f](code.md)` [g](https://example.com/x)\n\n```\n[h](fence.md)\n```\n[i](#nowhere)\n",
        encoding="utf-8",
    )
    assert broken(page) == ["missing.md", "other.md#no-heading", "missing.svg", "../x", "#nowhere"]


def test_every_page_is_in_the_index() -> None:
    index = REPOSITORY / "docs/README.md"
    listed = {(index.parent / target).resolve() for target in links(index.read_text(encoding="utf-8"))}
    wanted = {REPOSITORY / page for page in pages() if page.startswith("docs/") and "/decisions/" not in page}
    assert wanted - listed - {index} == set()


def test_the_readme_stays_short() -> None:
    assert len((REPOSITORY / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


@pytest.mark.parametrize("page", [page for page in pages() if "/decisions/" not in page])
def test_pages_use_plain_words(page: str) -> None:
    """Name the actor: the caller, the sender, the tenant, the collector. Decisions are kept as they were taken."""
    text = (REPOSITORY / page).read_text(encoding="utf-8")
    assert re.findall(r"\b(?:(?:some|any|every|no)body|wh(?:o|om|at)ever)\b", text, re.IGNORECASE) == []
