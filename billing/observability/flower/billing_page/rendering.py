"""Makes the pages' HTML: Jinja with every text escaped, put into Flower's own frame by its own template language."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, Final

import jinja2
from tornado import template

from billing.core.printable import printable
from billing.observability.flower.billing_page import wording

#: The name by which Flower's loader knows the frame.
FRAME: Final = "billing-frame.html"
_SOURCE: Final = """{% extends "base.html" %}
{% block title %}{{ title }} · Billing · Flower{% end %}
{% block navbar %}{% module Template("navbar.html", active_tab="billing") %}{% end %}
{% block container %}{% raw content %}{% end %}
{% block extra_scripts %}<script src="{{ script }}"></script>{% end %}
"""


class FrameLoader(template.Loader):
    """Loads Flower's templates, and the frame that extends them."""

    def _create_template(self, name: str) -> template.Template:
        if name == FRAME:
            return template.Template(_SOURCE, name=name, loader=self)
        return super()._create_template(name)


def content(name: str, values: Mapping[str, Any]) -> str:
    """Return what stands in the frame."""
    return environment().get_template(f"{name}.html.jinja").render(values)


@functools.cache
def environment() -> jinja2.Environment:
    """Return the templates, loaded once."""
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("billing.observability.flower.billing_page"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(
        printable=printable,
        number="{:,}".format,
        age=wording.age,
        lease=wording.lease,
        moment=wording.moment,
        iso=wording.iso,
        word=wording.word,
        detail=wording.detail,
    )
    made.globals.update(ago=wording.ago, until=wording.until)
    return made
