"""The stand-in as the embedded stack starts it: without the command line's imports, which cost a second of CPU.

`python -m billing.sinks.stripe.sandbox PORT FILE`; people use `billing stripe sandbox`.
"""

from __future__ import annotations

import sys
from pathlib import Path

from billing.core.errors import BillingError
from billing.sinks.stripe.sandbox.server import announcement, serve


def main() -> None:
    """Serve until a signal ends it; an error is one line in the server's log."""
    port, file = sys.argv[1:]
    try:
        serve(int(port), Path(file), lambda url: print(announcement(url), flush=True))  # noqa: T201 - its log
    except BillingError as error:
        sys.exit(f"Error: {error}")


if __name__ == "__main__":
    main()
