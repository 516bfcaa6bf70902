"""`billing client webhook`: where a client's alerts are posted to, and the secret that signs them."""

from __future__ import annotations

import click

from billing import admin
from billing.cli.completing import client_argument
from billing.cli.context import settings
from billing.cli.output import emit_json, json_option
from billing.core.errors import InvalidValue


@click.command(epilog="Example: billing client webhook acme https://acme.example/billing")
@client_argument
@click.argument("url", required=False)
@click.option("--rotate", is_flag=True, help="Make a new secret: what is sent from now on is signed by it.")
@click.option("--remove", is_flag=True, help="Send this client's alerts nowhere any more.")
@click.option("--insecure", is_flag=True, help="Allow http:// to another machine.")
@json_option
def webhook(client_id: str, url: str | None, rotate: bool, remove: bool, insecure: bool, as_json: bool) -> None:  # noqa: FBT001 - click gives options by name
    """Post a client's alerts to URL, signed by a secret that is printed once. Without URL: show where they go."""
    if remove and (url is not None or rotate):
        raise InvalidValue("--remove", client_id, "goes with neither a URL nor --rotate")
    found = settings()
    if remove:
        removed = admin.remove_webhook(found, client_id)
        _print({"client_id": client_id, "removed": removed}, "removed" if removed else "has none", as_json=as_json)
    elif url is not None:
        made, secret = admin.set_webhook(found, client_id, url, rotate=rotate, insecure=insecure)
        _print({"client_id": client_id, "url": made.url, "secret": secret}, made.url, secret, as_json=as_json)
    elif rotate:
        secret = admin.rotate_webhook(found, client_id)
        _print({"client_id": client_id, "secret": secret}, "new secret", secret, as_json=as_json)
    else:
        there = admin.webhook(found, client_id)
        shown = None if there is None else there.url
        _print({"client_id": client_id, "url": shown}, shown or "has none", as_json=as_json)


def _print(values: dict[str, object], text: str, secret: str | None = None, *, as_json: bool) -> None:
    if as_json:
        emit_json(values)
        return
    click.echo(f"webhook of {values['client_id']}: {text}")
    if secret is not None:
        click.echo(f"secret, shown this once: {secret}")
