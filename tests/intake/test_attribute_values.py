"""Values that are read by hand are what protobuf says that they are."""

from farebox_collector.intake.decoding.protobuf import attribute_value
from hypothesis import example, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.common.v1.common_pb2 import AnyValue

KEY = b"gen_ai.request.model"
HEAD = bytes([0x0A, len(KEY)]) + KEY
NUMBERS = st.one_of(
    st.integers(-(2**63), 2**63 - 1), st.sampled_from([0, 127, 128, 2**56 - 1, 2**56, 2**62, 2**63 - 1])
)
WRITTEN = st.one_of(
    st.builds(AnyValue, string_value=st.text(max_size=140)),
    st.builds(AnyValue, int_value=NUMBERS),
    st.builds(AnyValue, bool_value=st.booleans()),
    st.builds(AnyValue, double_value=st.floats()),
    st.builds(AnyValue, bytes_value=st.binary(max_size=9)),
).map(AnyValue.SerializeToString)
# Malformed numbers: too long, of too many bytes, cut off.
LOOSE_NUMBERS = st.lists(st.sampled_from([0x00, 0x01, 0x7F, 0x80, 0x81, 0xFF]), max_size=12).map(
    lambda digits: bytes([0x18, *digits])
)
LOOSE_TEXTS = st.binary(max_size=8).map(lambda text: bytes([0x0A, len(text)]) + text)


def exactly(value: object) -> str:
    return repr(value)


@given(WRITTEN | LOOSE_NUMBERS | LOOSE_TEXTS | st.binary(max_size=12))
@example(bytes([0x18, 0x80, 0x00]))
@example(bytes([0x18, 0x81, 0x80, 0x01]))
@example(bytes([0x18, 0x01, 0x01]))
@example(bytes([0x0A, 0x02, 0xC3, 0x28]))
@settings(max_examples=1_000)
def test_a_value_is_what_protobuf_says(value: bytes) -> None:
    lengths = bytes([len(value)]) if len(value) < 128 else bytes([len(value) & 127 | 128, len(value) >> 7])
    raw = HEAD + b"\x12" + lengths + value
    assert exactly(attribute_value(raw, len(HEAD))) == exactly(attribute_value(raw))


@given(WRITTEN, st.lists(st.tuples(st.integers(0, 200), st.integers(0, 2), st.binary(max_size=3)), max_size=3))
@settings(max_examples=1_000)
def test_a_damaged_value_is_what_protobuf_says(value: bytes, edits: list[tuple[int, int, bytes]]) -> None:
    tail = b"\x12" + bytes([len(value) % 128]) + value
    for place, removed, added in edits:
        at = place % (len(tail) + 1)
        tail = tail[:at] + added + tail[at + removed :]
    raw = HEAD + tail
    assert exactly(attribute_value(raw, len(HEAD))) == exactly(attribute_value(raw))


def test_plain_values_are_what_they_were() -> None:
    for text in ("", "gpt-4o", "é" * 40):
        assert attribute_value(HEAD + plain(AnyValue(string_value=text)), len(HEAD)) == text
    for number in (0, 1, 127, 128, 300, 2**31, 2**62, 2**63 - 1, -1, -(2**63)):
        assert attribute_value(HEAD + plain(AnyValue(int_value=number)), len(HEAD)) == number


def plain(value: AnyValue) -> bytes:
    encoded = value.SerializeToString()
    return bytes([0x12, len(encoded)]) + encoded
