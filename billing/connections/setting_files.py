"""Settings in files: `BILLING_X_FILE` names a file whose text is the setting `BILLING_X`, as secrets are handed over.

So a password is in no environment, which a container's description and a unit's show. Guarantee: a file that is named
is read, or refused with one line that says the variable and the path, never what is in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from billing.core.errors import InvalidValue

PREFIX: Final = "BILLING_"
SUFFIX: Final = "_FILE"
SIZE_LIMIT_BYTES: Final = 65_536


def read(environment: Mapping[str, str], names: Iterable[str]) -> dict[str, str]:
    """Return the variables of these settings that files hold. Raises `InvalidValue`."""
    found: dict[str, str] = {}
    for name in names:
        variable = f"{PREFIX}{name.upper()}"
        path = environment.get(variable + SUFFIX)
        if path is None:
            continue
        if variable in environment:
            raise InvalidValue(variable + SUFFIX, path, f"must not be set beside {variable}")
        found[variable] = _content(variable + SUFFIX, path)
    return found


def _content(variable: str, path: str) -> str:
    """Return a file's text without the end of its line, which editors add."""
    try:
        with Path(path).open(encoding="utf-8") as file:
            text = file.read(SIZE_LIMIT_BYTES + 1)
    except UnicodeDecodeError:
        raise InvalidValue(variable, path, "must be a file of UTF-8 text") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InvalidValue(variable, path, f"must be a file that can be read ({reason})") from None
    if len(text) > SIZE_LIMIT_BYTES:
        raise InvalidValue(variable, path, f"must have at most {SIZE_LIMIT_BYTES} bytes")
    if not text.strip():
        raise InvalidValue(variable, path, "must not be empty")
    return text.rstrip("\r\n")
