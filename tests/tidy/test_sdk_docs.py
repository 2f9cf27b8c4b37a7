"""docs/reference/sdk.md names all that the SDK reads from the environment, writes on spans, and changes in the
process."""

import re
from pathlib import Path

import farebox
from farebox import client_libraries, model_paths, span_attributes

PACKAGE = Path(farebox.__file__).parent
PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "sdk.md").read_text(encoding="utf-8")


def sources() -> str:
    return "".join(path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py"))


def test_every_environment_variable_is_documented() -> None:
    read = set(re.findall(r"\b(?:FAREBOX|OTEL)_[A-Z0-9_]+[A-Z0-9]\b", sources()))
    assert len(read) > 12
    assert {name for name in read if f"`{name}" not in PAGE} == set()


def test_every_variable_of_our_own_that_is_documented_is_read() -> None:
    assert set(re.findall(r"`(FAREBOX_[A-Z_]+)", PAGE)) <= set(re.findall(r"FAREBOX_[A-Z_]+", sources()))


def test_every_span_attribute_is_documented() -> None:
    written = {
        value
        for name, value in vars(span_attributes).items()
        if name.isupper() and not name.startswith("_") and isinstance(value, str)
    } - {span_attributes.UNITS, span_attributes.USAGE_CACHE_WRITE_BEFORE_1_42}
    assert len(written) > 35
    assert {key for key in written if f"`{key}`" not in PAGE} == set()
    assert {unit for unit in span_attributes.UNITS_WRITTEN if f"`{unit}`" not in PAGE} == set()


def test_everything_that_is_changed_in_the_process_is_documented() -> None:
    hooked = re.findall(r'\((?:threading\.)?(Thread(?:PoolExecutor)?), "(\w+)"', sources())
    assert len(hooked) == 2
    for owner, name in hooked:
        assert f"{owner}.{name}`" in PAGE
    for module, _ in client_libraries._OFFICIAL.values():
        package = module.replace(".", "-").replace("_", "-")
        assert f"`{package}`" in PAGE
    for library in client_libraries._HOOKED:
        assert f"`{library}`" in PAGE


def test_every_path_of_a_model_is_documented() -> None:
    for end, _, _, own in model_paths._ENDS:
        if own != "cohere":
            assert f"`{end}`" in PAGE
    for pattern, _, _ in model_paths._MODEL_PATHS:
        for method in re.findall(r"\w*(?:[cC]ontents?|[pP]redict)\b", pattern.pattern):
            assert f"`:{method}`" in PAGE


def test_every_public_name_is_documented() -> None:
    missing = {name for name in farebox.__all__ if not name.startswith("_") and f"farebox.{name}" not in PAGE}
    # What they return and raise is with them in the README.
    assert missing <= {"Attribution", "Scope", "flush", "uninstrument", "HoldUnavailable", "InsufficientCredits"}
