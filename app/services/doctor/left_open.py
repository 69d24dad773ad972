"""What others leave open in our PostgreSQL, for `sendable doctor`: what is over cannot be cleared away meanwhile."""

from __future__ import annotations

from collections.abc import AsyncIterator

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.services.doctor.finding import Finding

SINCE_MOST = 100_000
"""Transactions for which a reader may hold one snapshot open. Each of them leaves a dead version of the hour's counts,
which cannot be cleared away meanwhile: after 20,000 a group of 16 receipts took 34 ms in place of 2.3.
"""
LOG_MOST = 2 * 1024**3
"""Bytes of the write-ahead log that a reader who is not there may keep. They grow until the disk is full."""

# Of another role's session not even its beginning is shown to us; what it holds back is.
_READERS = text("""
SELECT pid, usename, age(backend_xmin) AS since FROM pg_stat_activity
WHERE (datname = current_database() OR datname IS NULL) AND usename IS NOT NULL AND age(backend_xmin) > :most
ORDER BY since DESC, pid
""")
_SLOTS = text("""
SELECT quote_literal(slot_name) AS name, pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::bigint AS bytes
FROM pg_replication_slots WHERE pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn) > :most ORDER BY slot_name
""")


async def findings(db: AsyncConnection, *, since_most: int = SINCE_MOST, log_most: int = LOG_MOST
                   ) -> AsyncIterator[Finding]:  # fmt: skip
    """Readers who hold a snapshot open for more transactions, and replication slots that keep more of the log."""
    for row in await db.execute(_READERS, {"most": since_most}):
        says = f"{row.usename} has held one snapshot open for {row.since} transactions: receipts take ever longer"
        mend = f"let it end, or let an administrator run: SELECT pg_terminate_backend({row.pid})"
        yield Finding("note", "left open", says, mend)
    for row in await db.execute(_SLOTS, {"most": log_most}):
        says = f"the replication slot {row.name} keeps {row.bytes / 1024**3:.1f} GiB of log, until the disk is full"
        mend = f"let its reader catch up, or let an administrator run: SELECT pg_drop_replication_slot({row.name})"
        yield Finding("wrong", "left open", says, mend)
