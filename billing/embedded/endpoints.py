"""Where the servers of an embedded stack are. The URLs hold passwords: nothing here prints them but `environment`."""

from __future__ import annotations

import dataclasses
from urllib.parse import urlsplit


@dataclasses.dataclass(frozen=True, kw_only=True)
class Endpoints:
    """One URL per purpose; billing's Redis is a server of its own."""

    redis_url: str = dataclasses.field(repr=False)
    database_url: str = dataclasses.field(repr=False)
    broker_url: str = dataclasses.field(repr=False)
    result_url: str = dataclasses.field(repr=False)
    stripe_sandbox_url: str

    def environment(self) -> dict[str, str]:
        """Return the variables that point billing's settings at this stack. They hold passwords."""
        return {f"BILLING_{field.name.upper()}": getattr(self, field.name) for field in dataclasses.fields(self)}

    def addresses(self) -> dict[str, str]:
        """Return each server's purpose and where it is, without passwords."""
        return {
            purpose: _without_password(url)
            for purpose, url in (
                ("billing's Redis", self.redis_url),
                ("database", self.database_url),
                ("broker", self.broker_url),
                ("results", self.result_url),
                ("Stripe stand-in", self.stripe_sandbox_url),
            )
        }

    def describe(self) -> str:
        """One line per server, without passwords."""
        return "\n".join(f"{purpose:<16} {url}" for purpose, url in self.addresses().items())


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}:{parts.port}{parts.path}"
