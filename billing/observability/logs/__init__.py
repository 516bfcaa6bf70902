"""The log as JSON, an object a line: for `billing_log_format = "json"`, and for anybody's own logging configuration."""

from __future__ import annotations

from billing.observability.logs.as_json import JsonFormatter

__all__ = ["JsonFormatter"]
