"""Credits are whole numbers from 1 (or 0) to 2^53 - 1; everything else is refused at the edge, by name (L9)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.core.credits import CREDITS_MAX, check_amount, parse_amount
from billing.core.errors import InvalidValue


@given(st.integers(1, CREDITS_MAX))
def test_whole_numbers_in_range_pass_unchanged(amount: int) -> None:
    """Given any amount that Lua's doubles count exactly, then it comes back the same, typed or computed."""
    assert check_amount("credits", amount) == amount
    assert parse_amount("credits", str(amount)) == amount
    assert int(float(amount)) == amount


@given(st.one_of(st.integers(max_value=0), st.integers(min_value=CREDITS_MAX + 1)))
def test_numbers_out_of_range_are_refused_with_field_value_and_rule(amount: int) -> None:
    """Given a zero, negative or too large amount, then the refusal names field, value and both bounds."""
    with pytest.raises(InvalidValue) as refused:
        check_amount("credits", amount)

    assert str(refused.value) == f"credits: {amount!r}: must be from 1 to {CREDITS_MAX}"


@pytest.mark.parametrize("value", [True, False, 1.0, 1.5, float("nan"), "1", b"1", None, [1], {"credits": 1}])
def test_what_is_no_whole_number_is_refused(value: object) -> None:
    """Given a value of another type, then it is refused, even where Python would count with it (True, 1.0)."""
    with pytest.raises(InvalidValue, match=r"^credits: .*: must be a whole number from 1 to 9007199254740991$"):
        check_amount("credits", value)


@pytest.mark.parametrize("text", ["", " ", "ten", "1.5", "1e3", "0x10", "1,000", "--5", "1 000", "9" * 5_000])
def test_text_that_is_no_whole_number_is_refused(text: str) -> None:
    """Given typed text that is no whole number, then one line says so."""
    with pytest.raises(InvalidValue) as refused:
        parse_amount("credits", text)

    assert refused.value.field == "credits"
    assert "\n" not in str(refused.value)


def test_zero_is_an_amount_only_where_it_means_something() -> None:
    """Given a minimum of 0 (a price, a quantity), then 0 passes; a grant of 0 is refused."""
    assert check_amount("credits_per_unit", 0, minimum=0) == 0
    assert parse_amount("credits_per_unit", "0", minimum=0) == 0
    with pytest.raises(InvalidValue):
        check_amount("credits", 0)


def test_digits_may_be_grouped_as_in_python() -> None:
    """Given 1_000_000, then it is a million."""
    assert parse_amount("credits", "1_000_000") == 1_000_000
