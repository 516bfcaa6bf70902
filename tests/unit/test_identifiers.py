"""Client ids and SKUs are checked once, at the edge, and a refusal names field, value and rule."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.core.errors import InvalidValue
from billing.core.identifiers import CLIENT_ID_LENGTH_MAX, SKU_LENGTH_MAX, check_client_id, check_sku

_SKU_CHARACTERS = string.ascii_lowercase + string.digits + "._-"


@given(
    st.text(st.characters(exclude_characters=" "), min_size=1, max_size=CLIENT_ID_LENGTH_MAX).filter(str.isprintable)
)
def test_printable_text_without_spaces_is_a_client_id(client_id: str) -> None:
    """Given any such text, then it is a client id, opaque and unchanged."""
    assert check_client_id(client_id) == client_id


@pytest.mark.parametrize(
    "value",
    [
        "",
        " ",
        "two words",
        "line\nbreak",
        "tab\t",
        "\x00",
        "a" * 129,
        "no\u00a0break",
        "\ud800",
        7,
        None,
        b"acme",
        ["a"],
    ],
)
def test_anything_else_is_no_client_id(value: object) -> None:
    """Given a bad client id, then one printable line names the field, the value and the rule."""
    with pytest.raises(InvalidValue) as refused:
        check_client_id(value, field="billing_client")

    shown = str(refused.value)
    assert shown.startswith(f"billing_client: {value!r}: must be ")
    assert shown.isprintable()


@given(st.from_regex(r"[a-z0-9][a-z0-9._-]{0,63}", fullmatch=True))
def test_skus_are_lower_case_names(sku: str) -> None:
    """Given a name of the rule, then it is a SKU."""
    assert check_sku(sku) == sku
    assert len(sku) <= SKU_LENGTH_MAX
    assert set(sku) <= set(_SKU_CHARACTERS)


@pytest.mark.parametrize(
    "value", ["", "Page", "page capture", "-page", ".page", "_page", "page\n", "a" * 65, "straße", 5, None, b"page"]
)
def test_anything_else_is_no_sku(value: object) -> None:
    """Given a bad SKU, then the refusal names the field, the value and the rule."""
    with pytest.raises(InvalidValue, match=r"^sku: .*: must be 1 to 64 of a-z 0-9"):
        check_sku(value)
