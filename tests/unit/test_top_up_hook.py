"""The application's hook is found by its name; what is wrong with its module is one line, and ends no loop."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from billing.core.errors import InvalidValue
from billing.top_ups.hook import load_hook


@pytest.mark.parametrize("text", ["raise SystemExit(3)", "raise OSError", "import no_such_module", "buy = 1"])
def test_a_module_that_cannot_be_used_is_refused(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given also a script that exits when it is imported, which would end the thread of the loop without a word."""
    (tmp_path / "useless_payments.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "useless_payments", raising=False)
    with pytest.raises(InvalidValue, match=r"^billing_top_up_hook: 'useless_payments:buy': "):
        load_hook("useless_payments:buy")
