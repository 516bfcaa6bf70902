"""The application's hook is found by its name; what is wrong with its module is one line, and ends no loop."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import pytest

from billing.core.errors import InvalidValue
from billing.top_ups.hook import Calls, load_hook
from billing.top_ups.request import Request
from tests.amqp import START


@pytest.mark.parametrize("text", ["raise SystemExit(3)", "raise OSError", "import no_such_module", "buy = 1"])
def test_a_module_that_cannot_be_used_is_refused(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given also a script that exits when it is imported, which would end the thread of the loop without a word."""
    (tmp_path / "useless_payments.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "useless_payments", raising=False)
    with pytest.raises(InvalidValue, match=r"^billing_top_up_hook: 'useless_payments:buy': "):
        load_hook("useless_payments:buy")


def test_a_call_that_finds_no_thread_leaves_its_place_to_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a process that may have no more threads, then nobody was asked, and the client has no call under way."""
    calls = Calls()
    request = Request(
        request_id=1,
        client_id="acme",
        key="top-up-1",
        credits=5,
        shortfall="low",
        available=1,
        attempts=1,
        created_at=START,
    )

    def no_thread(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_thread)
        assert calls.start(lambda _: "granted", request) is None
    assert calls.busy() == []
    again = calls.start(lambda _: "granted", request)
    assert again is not None
    assert again.result(60) == "granted"
