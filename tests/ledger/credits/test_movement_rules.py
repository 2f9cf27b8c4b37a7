"""Which fields each kind of movement needs, and which it does not allow."""

import pytest
from farebox_collector.ledger.credits.movements import (
    REQUESTABLE,
    InvalidField,
    Kind,
    Movement,
    require_valid,
)

NOW_NS = 1_767_300_000 * 10**9


@pytest.mark.parametrize("kind", Kind)
def test_each_kind_has_its_fields(kind: Kind) -> None:
    bare = Movement(kind, "ada", 1, to_wallet="bob" if kind is Kind.TRANSFER else "")
    valid = bare._replace(lot_id=7 if kind is Kind.REFUND else 0)

    def wrong(movement: Movement) -> str:
        with pytest.raises(InvalidField) as error:
            require_valid(movement, NOW_NS)
        return error.value.field

    if kind not in REQUESTABLE:
        assert wrong(valid) == "kind"
        return
    require_valid(valid._replace(expires_at_ns=NOW_NS + 1), NOW_NS)
    assert wrong(valid._replace(expires_at_ns=NOW_NS)) == "expires_at_ns"
    assert wrong(valid._replace(price_nanousd=-1)) == "price_nanousd"
    assert wrong(valid._replace(to_wallet="ada")) == "to_wallet"
    assert wrong(valid._replace(lot_id=0 if kind is Kind.REFUND else 7)) == "lot_id"
    assert wrong(valid._replace(to_wallet="" if kind is Kind.TRANSFER else "bob")) == "to_wallet"
    if kind is Kind.DEPOSIT:
        require_valid(valid._replace(price_nanousd=1), NOW_NS)
    else:
        assert wrong(valid._replace(price_nanousd=1)) == "price_nanousd"
    if kind is not Kind.ADJUSTMENT:
        assert wrong(valid._replace(amount_nanocredits=-1)) == "amount_nanocredits"
