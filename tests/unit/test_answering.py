"""Whether an error leaves the storing of a success is read from the error itself, while it is on its way (L3)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from billing.task.answering import answer_is_in_doubt


def mark_as_done() -> None:
    """Fail as a result backend does."""
    raise ConnectionError("the reply is lost")


def _dispatch_callbacks() -> None:
    raise ConnectionError("the callback is not sent")


@pytest.mark.parametrize(("step", "in_doubt"), [(mark_as_done, True), (_dispatch_callbacks, False)])
def test_only_the_storing_of_a_success_leaves_it_in_doubt(step: Callable[[], None], *, in_doubt: bool) -> None:
    """Given the end of a task as Celery runs it, in a `finally`, then the step that failed decides."""
    seen: list[bool] = []

    def ends() -> None:
        try:
            step()
        finally:
            seen.append(answer_is_in_doubt())

    with pytest.raises(ConnectionError):
        ends()
    assert seen == [in_doubt]


def test_without_an_error_nothing_is_in_doubt() -> None:
    assert not answer_is_in_doubt()
