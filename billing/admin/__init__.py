"""What the commands do, from Python: clients, grants, prices, balances. Each call is idempotent by its key.

PostgreSQL is written first and Redis second; what dies between the two is finished by the fulfillment worker.
"""

from __future__ import annotations

from billing.admin.access import close
from billing.admin.alerts import AlertRow, Webhook, alerts, remove_webhook, rotate_webhook, set_webhook, webhook
from billing.admin.allowances import add_allowance, allowances, end_allowance
from billing.admin.changes import adjust_credits, set_client_state, set_overdraft, void
from billing.admin.clients import ClientView, add_client, client, clients
from billing.admin.dead_letters import (
    Replay,
    dead_letter,
    dead_letters,
    discard_dead_letters,
    replay_dead_letters,
)
from billing.admin.dry_runs import DryRuns, dry_runs
from billing.admin.grants import grant
from billing.admin.parked import PARKED_SHOWN_MAX, cancel_parked, parked
from billing.admin.partitions import Partitions, attach_month, detach_month, make_months, partitions
from billing.admin.past import PastBalance, balance_at
from billing.admin.prices import prices, set_price
from billing.admin.quotes import quote
from billing.admin.reading import all_usage, balance, usage, usage_totals
from billing.admin.rebuilding import Rebuilding, rebuild
from billing.admin.receipts import open_receipt, receipt
from billing.admin.reconciling import plan_repair, reconcile, reconciler_status, repair
from billing.admin.resending import Resent, resend_alerts
from billing.admin.stripe import (
    sync_adopt,
    sync_confirm,
    sync_errors,
    sync_flush,
    sync_plan,
    sync_push,
    sync_resolve,
    sync_show,
    sync_status,
)
from billing.admin.stripe_links import (
    Subscribed,
    create_customer,
    customers,
    invoices,
    link_client,
    move_client,
    subscribe_client,
)
from billing.admin.stripe_setup import (
    INTERVALS,
    add_meter,
    advance_stand_in,
    meters,
    skus_without_price,
    stripe_setup,
)
from billing.admin.sync_reconciling import sync_reconcile
from billing.admin.top_ups import TopUp, answer_top_up, remove_top_up, set_top_up, top_up
from billing.admin.usage_adjustments import adjust_usage
from billing.admin.usage_sums import UsageSums, usage_by, usage_total
from billing.ledger.grant_terms import Terms, check_terms
from billing.task.quoting import Quote

__all__ = [
    "INTERVALS",
    "PARKED_SHOWN_MAX",
    "AlertRow",
    "ClientView",
    "DryRuns",
    "Partitions",
    "PastBalance",
    "Quote",
    "Rebuilding",
    "Replay",
    "Resent",
    "Subscribed",
    "Terms",
    "TopUp",
    "UsageSums",
    "Webhook",
    "add_allowance",
    "add_client",
    "add_meter",
    "adjust_credits",
    "adjust_usage",
    "advance_stand_in",
    "alerts",
    "all_usage",
    "allowances",
    "answer_top_up",
    "attach_month",
    "balance",
    "balance_at",
    "cancel_parked",
    "check_terms",
    "client",
    "clients",
    "close",
    "create_customer",
    "customers",
    "dead_letter",
    "dead_letters",
    "detach_month",
    "discard_dead_letters",
    "dry_runs",
    "end_allowance",
    "grant",
    "invoices",
    "link_client",
    "make_months",
    "meters",
    "move_client",
    "open_receipt",
    "parked",
    "partitions",
    "plan_repair",
    "prices",
    "quote",
    "rebuild",
    "receipt",
    "reconcile",
    "reconciler_status",
    "remove_top_up",
    "remove_webhook",
    "repair",
    "replay_dead_letters",
    "resend_alerts",
    "rotate_webhook",
    "set_client_state",
    "set_overdraft",
    "set_price",
    "set_top_up",
    "set_webhook",
    "skus_without_price",
    "stripe_setup",
    "subscribe_client",
    "sync_adopt",
    "sync_confirm",
    "sync_errors",
    "sync_flush",
    "sync_plan",
    "sync_push",
    "sync_reconcile",
    "sync_resolve",
    "sync_show",
    "sync_status",
    "top_up",
    "usage",
    "usage_by",
    "usage_total",
    "usage_totals",
    "void",
    "webhook",
]
