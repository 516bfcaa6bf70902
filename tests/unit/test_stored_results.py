"""When a result was stored, from what any backend says of it."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime

import pytest

from billing.core.errors import InvalidValue
from billing.task.stored_results import is_unreadable, status_of, stored_at


def test_the_time_of_a_result_is_utc() -> None:
    at = datetime(2026, 11, 22, 1, tzinfo=UTC)
    assert [stored_at(text) for text in ("2026-11-22T01:00:00", "2026-11-22T03:00:00+02:00")] == [at, at]


@pytest.mark.parametrize("said", [None, 5, "yesterday", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
def test_what_is_no_time_is_none(said: object) -> None:
    assert stored_at(said) is None


@pytest.mark.parametrize("meta", [None, [], {}, {"status": None}, {"status": 5}])
def test_a_record_without_a_state_is_refused(meta: object) -> None:
    with pytest.raises(InvalidValue, match=r"^status: .*: must be the text of a state$"):
        status_of(meta)


def test_a_connection_that_fails_is_no_unreadable_record() -> None:
    errors = [KeyError("x"), RecursionError(), OSError(), ssl.SSLCertVerificationError(), RuntimeError()]
    assert [is_unreadable(error) for error in errors] == [True, True, False, False, False]
