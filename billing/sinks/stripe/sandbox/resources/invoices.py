"""Invoices: read only. The clock makes them, see `invoicing/`."""

from __future__ import annotations

from typing import Any, Final

from billing.sinks.stripe.sandbox import errors
from billing.sinks.stripe.sandbox.billed_records import Subscription
from billing.sinks.stripe.sandbox.invoicing.drafting import lines_of
from billing.sinks.stripe.sandbox.invoicing.records import Invoice
from billing.sinks.stripe.sandbox.pages import page
from billing.sinks.stripe.sandbox.params import EXPAND, PAGE, Param, Spec, within
from billing.sinks.stripe.sandbox.routing import Call, route

LIST: Final[Spec] = {
    **PAGE,
    "created": Param(kind="range"),
    "customer": Param(),
    "status": Param(choices=("draft", "open", "paid", "uncollectible", "void")),
    "subscription": Param(),
}
#: Lines that an invoice shows of itself; the others are listed at its `lines` address.
LINES_SHOWN: Final = 10
_NOTHING: Final = dict.fromkeys(
    (
        "account_country",
        "account_name",
        "account_tax_ids",
        "amount_paid_off_stripe",
        "application",
        "confirmation_secret",
        "custom_fields",
        "customer_account",
        "customer_address",
        "customer_phone",
        "customer_shipping",
        "default_payment_method",
        "default_source",
        "description",
        "due_date",
        "ending_balance",
        "footer",
        "from_invoice",
        "hosted_invoice_url",
        "invoice_pdf",
        "last_finalization_error",
        "latest_revision",
        "next_payment_attempt",
        "on_behalf_of",
        "receipt_number",
        "rendering",
        "shipping_cost",
        "shipping_details",
        "statement_descriptor",
        "status_details",
        "test_clock",
        "threshold_reason",
        "webhooks_delivered_at",
    )
)
_FIXED: Final[dict[str, Any]] = {
    "amount_overpaid": 0,
    "amount_shipping": 0,
    "attempt_count": 0,
    "attempted": False,
    "automatic_tax": {"disabled_reason": None, "enabled": False, "liability": None, "provider": None, "status": None},
    "customer_tax_exempt": "none",
    "customer_tax_ids": [],
    "default_tax_rates": [],
    "discounts": [],
    "issuer": {"account": None, "type": "self"},
    "livemode": False,
    "metadata": {},
    "payment_settings": {"default_mandate": None, "payment_method_options": None, "payment_method_types": None},
    "post_payment_credit_notes_amount": 0,
    "pre_payment_credit_notes_amount": 0,
    "starting_balance": 0,
    "total_discount_amounts": [],
    "total_pretax_credit_amounts": [],
    "total_taxes": [],
}


def retrieve(call: Call) -> dict[str, Any]:
    """`GET /v1/invoices/{id}`."""
    return shape(call, _found(call))


def list_all(call: Call) -> dict[str, Any]:
    """`GET /v1/invoices`, newest first."""
    given = call.params
    wanted = [
        shape(call, one)
        for one in call.store.documents.of(Invoice, owner=given.get("customer"))
        if given.get("subscription") in {None, one.subscription}
        and given.get("status") in {None, one.status}
        and within(one.created, given.get("created"))
    ]
    return page(wanted, given, url="/v1/invoices")


def list_lines(call: Call) -> dict[str, Any]:
    """`GET /v1/invoices/{id}/lines`."""
    lines = lines_of(call.store, call.knobs, _found(call), call.now)
    return page(lines, call.params, url=f"/v1/invoices/{call.id}/lines")


def shape(call: Call, invoice: Invoice) -> dict[str, Any]:
    """Return the object that a caller sees. A draft shows what it would be now."""
    lines = lines_of(call.store, call.knobs, invoice, call.now)
    total = sum(line["amount"] for line in lines)
    paid = total if invoice.status == "paid" else 0
    customer = call.store.customer(invoice.owner)
    subscription = call.store.documents.get(Subscription, invoice.subscription)
    of_subscription = {
        "metadata": {} if subscription is None else subscription.details["metadata"],
        "subscription": invoice.subscription,
        "subscription_proration_date": None,
    }
    draft = invoice.finalized_at is None
    return {
        **_NOTHING,
        **_FIXED,
        "id": invoice.id,
        "object": "invoice",
        "amount_due": total,
        "amount_paid": paid,
        "amount_remaining": total - paid,
        "auto_advance": draft,
        "automatically_finalizes_at": invoice.finalizes_at if draft else None,
        "billing_reason": invoice.billing_reason,
        "collection_method": "charge_automatically"
        if subscription is None
        else subscription.details["collection_method"],
        "created": invoice.created,
        "currency": invoice.currency,
        "customer": invoice.owner,
        "customer_email": None if customer is None else customer.details["email"],
        "customer_name": None if customer is None else customer.details["name"],
        "effective_at": invoice.finalized_at,
        "lines": {
            "object": "list",
            "data": lines[:LINES_SHOWN],
            "has_more": len(lines) > LINES_SHOWN,
            "url": f"/v1/invoices/{invoice.id}/lines",
        },
        "number": invoice.number,
        "parent": {"quote_details": None, "subscription_details": of_subscription, "type": "subscription_details"},
        "period_end": invoice.period_end,
        "period_start": invoice.period_start,
        "status": invoice.status,
        "status_transitions": {
            "finalized_at": invoice.finalized_at,
            "marked_uncollectible_at": None,
            "paid_at": invoice.finalized_at if invoice.status == "paid" else None,
            "voided_at": None,
        },
        "subtotal": total,
        "subtotal_excluding_tax": total,
        "total": total,
        "total_excluding_tax": total,
    }


def _found(call: Call) -> Invoice:
    found = call.store.documents.get(Invoice, call.id)
    if found is None:
        raise errors.no_such("invoice", call.id)
    return found


ROUTES: Final = (
    route("GET", "/v1/invoices", LIST, list_all),
    route("GET", "/v1/invoices/{id}", EXPAND, retrieve),
    route("GET", "/v1/invoices/{id}/lines", PAGE, list_lines),
)
