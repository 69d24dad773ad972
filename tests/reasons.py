"""Reasons that the policy treats alike: written out by hand what climbs a ladder and what is only counted."""

from __future__ import annotations

from app.models.catalogue import REASONS
from tests.verdicts import LOOKUPS

SOFT = frozenset({
    "barred", "absent_subscriber", "handset_full", "handset_busy", "handset_error", "prepaid_no_credit",
    "roaming_not_allowed", "expired", "not_acknowledged",
})  # fmt: skip
NO_DETAIL = frozenset({"unknown", "rejected_unspecified", "deleted", "cancelled"})
COUNTED = frozenset({
    "sender_blocked", "sender_not_registered", "throughput_exceeded", "quota_exceeded", "content_blocked",
    "network_error", "gateway_error", "mms_not_supported", "partial_failure", "flood_control", "fraud_blocked",
    "no_route", "quota_warning", "request_error", "account_error", "billing", "invalid_message", "invalid_sender",
})  # fmt: skip
BLOCKING = sorted(reason for reason in REASONS if LOOKUPS.rule(reason).block)
