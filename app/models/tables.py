"""The schema that Alembic compares with. What each table is for stands above it."""

from __future__ import annotations

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    Column,
    Date,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    SmallInteger,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import JSON, JSONB, TIMESTAMP, UUID

metadata = MetaData()
_TIME = TIMESTAMP(timezone=True)
_NOW = text("now()")

# Every receipt as it was understood, by day of arrival; old days are dropped as partitions.
receipts = Table(
    "receipts",
    metadata,
    Column("received_at", _TIME, nullable=False),
    Column("key", UUID, nullable=False),
    Column("gateway", Text, nullable=False),
    Column("account", Text, nullable=False),
    Column("message_id", Text),
    Column("number", Text),
    Column("sender", Text),
    Column("status", Text, nullable=False),
    Column("code_space", Text),
    Column("code", Text),
    Column("reason", Text),
    Column("carrier", Text),
    Column("mcc", Text),
    Column("mnc", Text),
    Column("segment", SmallInteger),
    Column("segments", SmallInteger),
    Column("occurred_at", _TIME),
    Column("sent_at", _TIME),
    Index("receipts_message_id", "message_id", "received_at"),
    Index("receipts_number", "number", "received_at"),
    Index("receipts_received_at", "received_at", postgresql_using="brin"),
    postgresql_partition_by="RANGE (received_at)",
)

# What has been taken already: the one place where a repeated receipt is recognised. Pruned after 8 days.
receipt_keys = Table(
    "receipt_keys",
    metadata,
    Column("key", UUID, primary_key=True),
    Column("arrived_at", _TIME, nullable=False),
    Index("receipt_keys_arrived_at", "arrived_at", postgresql_using="brin"),
)

# The sent-message register, kept 14 days. A row without a number is a receipt's place-holder: its lock makes the two
# orders of arrival meet. `asked_at`: when its gateway was last asked what became of it.
messages = Table(
    "messages",
    metadata,
    Column("gateway", Text, primary_key=True),
    Column("account", Text, primary_key=True),
    Column("message_id", Text, primary_key=True),
    Column("number", Text),
    Column("sender", Text),
    Column("carrier", Text),
    Column("sent_at", _TIME),
    Column("registered_at", _TIME, nullable=False),
    Column("asked_at", _TIME),
    Index("messages_registered_at", "registered_at", postgresql_using="brin"),
)

# Receipts that wait for the register to name their number or sender, kept 14 days.
unnamed = Table(
    "unnamed",
    metadata,
    Column("gateway", Text, primary_key=True),
    Column("account", Text, primary_key=True),
    Column("message_id", Text, primary_key=True),
    Column("key", UUID, primary_key=True),
    Column("receipt", JSON, nullable=False),
    Column("received_at", _TIME, nullable=False),
)

# A number's facts, and what they show: the present step in columns, the steps that follow when it lapses in `steps`.
# A number that only a deactivation file has spoken of has no facts, and `noted_by` that file (`dead_since` the event,
# `noted_guard` what an opt-in must be newer than to survive it): millions of them, read as facts when they are needed.
numbers = Table(
    "numbers",
    metadata,
    Column("number", Text, primary_key=True),
    Column("facts", JSON),
    Column("steps", JSONB, nullable=False, server_default=text("'[]'")),
    Column("state", Text, nullable=False, server_default=text("'unseen'")),
    Column("reason", Text),
    Column("waiting_for", Text),
    Column("until", _TIME),
    Column("dead_since", _TIME),
    Column("carrier", JSONB),
    Column("changed_at", _TIME),
    Column("last_receipt_at", _TIME),
    Column("noted_by", BigInteger),
    Column("noted_guard", _TIME),
    Index("numbers_until", "until", postgresql_where=text("until IS NOT NULL")),
    Index(
        "numbers_state",
        "state",
        "number",
        postgresql_where=text("state NOT IN ('active', 'unseen') AND noted_by IS NULL"),
    ),
    Index("numbers_held", "waiting_for", "changed_at", postgresql_where=text("state = 'held' AND noted_by IS NULL")),
    Index("numbers_dead_since", "number", postgresql_where=text("dead_since IS NOT NULL AND noted_by IS NULL")),
    postgresql_with={"fillfactor": 80},
)

# The blocks in force, by sender.
sender_blocks = Table(
    "sender_blocks",
    metadata,
    Column("number", Text, primary_key=True),
    Column("sender", Text, primary_key=True),
    Column("reason", Text, nullable=False),
    Column("at", _TIME, nullable=False),
    Column("cause", JSONB, nullable=False),
)

# Consent, one row for a number on a list of a sender.
subscriptions = Table(
    "subscriptions",
    metadata,
    Column("number", Text, primary_key=True),
    Column("sender", Text, primary_key=True),
    Column("list", Text, primary_key=True),
    Column("facts", JSON, nullable=False),
    Column("consent", Text, nullable=False),
    Column("opted_in_at", _TIME),
    Column("reason", Text),
    Column("code_space", Text),
    Column("code", Text),
    Column("at", _TIME, nullable=False),
    Index("subscriptions_list", "sender", "list", "number"),
)

# The feed and the history: what truly changed, in commit order.
changes = Table(
    "changes",
    metadata,
    Column("seq", BigInteger, Identity(always=True), primary_key=True),
    Column("number", Text, nullable=False),
    Column("sender", Text),
    Column("list", Text),
    Column("kind", Text, nullable=False),
    Column("before", Text),
    Column("after", Text),
    Column("reason", Text),
    Column("cause", JSONB, nullable=False),
    Column("occurred_at", _TIME, nullable=False),
    Column("committed_at", _TIME, nullable=False),
    Index("changes_number", "number", "seq"),
    Index("changes_committed_at", "committed_at", postgresql_using="brin"),
    Index(
        "changes_opt_outs",
        "occurred_at",
        postgresql_where=text(
            "kind = 'list.opted_out' AND before = 'opted_in' OR kind = 'list.opted_in' AND reason IS NOT NULL"
        ),
    ),
)

# Carrier lookups that are due, or under way until `lease_until`: who claims one puts a token there, and writes nothing
# when another one stands there by then. `step` of the timetable; `tries`: how often no provider answered this step.
lookups = Table(
    "lookups",
    metadata,
    Column("number", Text, primary_key=True),
    Column("reason", Text, nullable=False),
    Column("cause", JSONB, nullable=False),
    Column("asked_at", _TIME, nullable=False),
    Column("due_at", _TIME, nullable=False),
    Column("step", SmallInteger, nullable=False, server_default=text("0")),
    Column("tries", SmallInteger, nullable=False, server_default=text("0")),
    Column("lease_until", _TIME),
    Column("token", UUID),
    Column("waiting_for", Text),
    Index("lookups_due_at", "due_at"),
)

# Every answer of a provider, without what tells who or where a person is. `kept_until`: it is used again until then;
# `config` marks the settings under which a provider refused.
lookup_answers = Table(
    "lookup_answers",
    metadata,
    Column("number", Text, primary_key=True),
    Column("asked_at", _TIME, primary_key=True),
    Column("provider", Text, primary_key=True),
    Column("outcome", Text, nullable=False),
    Column("detail", Text, nullable=False),
    Column("found", JSONB),
    Column("price", Numeric, nullable=False),
    Column("kept_until", _TIME),
    Column("config", Text, nullable=False),
    Index("lookup_answers_asked_at", "asked_at", postgresql_using="brin"),
)

# What lookups have cost, or may have cost: reserved before a call, settled after it. By day, and by number and day.
lookup_days = Table(
    "lookup_days",
    metadata,
    Column("day", Date, primary_key=True),
    Column("spent", Numeric, nullable=False),
)
lookup_spend = Table(
    "lookup_spend",
    metadata,
    Column("number", Text, primary_key=True),
    Column("day", Date, primary_key=True),
    Column("spent", Numeric, nullable=False),
    Index("lookup_spend_day", "day"),
)

# Lookup providers that refuse our account (`auth`, `quota`), under the settings that `config` marks.
lookup_stops = Table(
    "lookup_stops",
    metadata,
    Column("provider", Text, primary_key=True),
    Column("config", Text, primary_key=True),
    Column("error", Text, nullable=False),
    Column("since", _TIME, nullable=False),
)

# Final receipts and opt-outs by sender, carrier and hour; `outcome` is `sent`, `delivered`, a reason, or
# `list.opted_out` for whoever left.
hourly_counts = Table(
    "hourly_counts",
    metadata,
    Column("hour", _TIME, primary_key=True),
    Column("sender", Text, primary_key=True),
    Column("carrier", Text, primary_key=True),
    Column("outcome", Text, primary_key=True),
    Column("total", BigInteger, nullable=False),
)

# Callbacks, or elements of them, that could not be read: kept as they came, to be replayed after a mend.
unread = Table(
    "unread",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("digest", UUID, nullable=False, unique=True),
    Column("gateway", Text, nullable=False),
    Column("account", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("method", Text, nullable=False),
    Column("headers", JSONB, nullable=False),
    Column("query", Text, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("first_at", _TIME, nullable=False),
    Column("last_at", _TIME, nullable=False),
    Column("times", Integer, nullable=False, server_default=text("1")),
)

# Requests that did not prove their origin, the newest 10,000 of each gateway, as long as receipts: proven again once a
# secret is mended. What they presented as a secret is a salted digest in `headers` and `query`.
refused = Table(
    "refused",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("gateway", Text, nullable=False),
    Column("account", Text, nullable=False),
    Column("arrived_at", _TIME, nullable=False),
    Column("method", Text, nullable=False),
    Column("url", Text, nullable=False),
    Column("headers", JSONB, nullable=False),
    Column("query", Text, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("salt", LargeBinary, nullable=False),
    Index("refused_gateway", "gateway", "id"),
)

# Codes and status words that no table knows, with one message that had them.
unknown_words = Table(
    "unknown_words",
    metadata,
    Column("gateway", Text, primary_key=True),
    Column("account", Text, primary_key=True),
    Column("kind", Text, primary_key=True),
    Column("space", Text, primary_key=True),
    Column("word", Text, primary_key=True),
    Column("status", Text, nullable=False),
    Column("message_id", Text),
    Column("first_at", _TIME, nullable=False),
    Column("last_at", _TIME, nullable=False),
    Column("count", BigInteger, nullable=False),
)

# Deactivation files, and how far each one is taken in: `staged` lines lie in a table of their own, feed_lines_ID, of
# which the first `acted` blocks have been acted on; that table is gone once `finished_at` is set. `fetched`: the key by
# which its feed names it.
feed_files = Table(
    "feed_files",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("feed", Text, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("day", Date),
    Column("carrier", Text),
    Column("name", Text),
    Column("fetched", Text),
    Column("started_at", _TIME, nullable=False),
    Column("finished_at", _TIME),
    Column("staged", BigInteger, nullable=False, server_default=text("0")),
    Column("whole", Boolean, nullable=False, server_default=text("false")),
    Column("cut", Boolean, nullable=False, server_default=text("false")),
    Column("acted", BigInteger, nullable=False, server_default=text("0")),
    Column("records", BigInteger, nullable=False, server_default=text("0")),
    Column("broken", BigInteger, nullable=False, server_default=text("0")),
    Column("errors", JSONB, nullable=False, server_default=text("'[]'")),
    Column("held", BigInteger, nullable=False, server_default=text("0")),
    Column("noted", BigInteger, nullable=False, server_default=text("0")),
    Column("changes", BigInteger, nullable=False, server_default=text("0")),
    Column("opted_out", BigInteger, nullable=False, server_default=text("0")),
    Index("feed_files_digest", "feed", "digest", "day", unique=True, postgresql_nulls_not_distinct=True),
    Index("feed_files_fetched", "feed", "fetched", unique=True, postgresql_where=text("fetched IS NOT NULL")),
)

# What a person should look at.
alarms = Table(
    "alarms",
    metadata,
    Column("kind", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("since", _TIME, nullable=False),
    Column("last_at", _TIME, nullable=False),
    Column("count", BigInteger, nullable=False),
    Column("cleared_at", _TIME),
)

# Mass events: failures of one key (gateway, code, sender, carrier) that wait for a person's decision.
quarantines = Table(
    "quarantines",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("key", Text, nullable=False),
    Column("gateway", Text, nullable=False),
    Column("code_space", Text, nullable=False),
    Column("code", Text, nullable=False),
    Column("sender", Text, nullable=False),
    Column("carrier", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("seen", BigInteger, nullable=False),
    Column("allowed", BigInteger, nullable=False),
    Column("opened_at", _TIME, nullable=False),
    Column("decision", Text),
    Column("decided_at", _TIME),
    Column("decided_by", Text),
    Index("quarantines_open", "key", unique=True, postgresql_where=text("decision IS NULL")),
)

# Numbers that a key failed for in the last quarter of an hour, and those that wait in its quarantine.
breaker_hits = Table(
    "breaker_hits",
    metadata,
    Column("key", Text, primary_key=True),
    Column("number", Text, primary_key=True),
    Column("at", _TIME, nullable=False),
    Column("quarantine", BigInteger),
    Index("breaker_hits_loose", "key", postgresql_where=text("quarantine IS NULL")),
    Index("breaker_hits_held", "quarantine", "number", postgresql_where=text("quarantine IS NOT NULL")),
    postgresql_with={"fillfactor": 80},
)

# How many distinct numbers a key failed for in each past window: what is usual, as a baseline. Kept for 90 days.
breaker_windows = Table(
    "breaker_windows",
    metadata,
    Column("key", Text, primary_key=True),
    Column("starts", _TIME, primary_key=True),
    Column("total", BigInteger, nullable=False),
)

# The catalogue as other systems read it; replaced at start when the files have changed.
codes = Table(
    "codes",
    metadata,
    Column("space", Text, primary_key=True),
    Column("code", Text, primary_key=True),
    Column("meaning", Text, nullable=False),
    Column("level", Text, nullable=False),
    Column("permanence", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("confidence", Text, nullable=False),
    Column("source", Text, nullable=False),
)

# Keys of internal services: only a digest is kept.
api_keys = Table(
    "api_keys",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("scopes", ARRAY(Text), nullable=False),
    Column("created_at", _TIME, nullable=False, server_default=_NOW),
    Column("expires_at", _TIME),
    Column("revoked_at", _TIME),
    Column("first", Boolean, nullable=False, server_default=text("false")),
)

# Files of subscribers on their way in: how far each is read, what came of it so far. A row goes when its file is done.
imports = Table(
    "imports",
    metadata,
    Column("id", UUID, primary_key=True),
    Column("staged_to", BigInteger, nullable=False, server_default=text("0")),
    Column("told", JSONB, nullable=False, server_default=text("'{}'")),
    Column("touched_at", _TIME, nullable=False),
)

# Their lines that are read and not yet applied.
import_lines = Table(
    "import_lines",
    metadata,
    Column("import", UUID, primary_key=True),
    Column("line", BigInteger, primary_key=True),
    Column("number", Text, primary_key=True),
    Column("sender", Text, nullable=False),
    Column("list", Text, nullable=False),
    Column("consented_at", _TIME, nullable=False),
    Column("source", Text, nullable=False),
    Column("evidence", Text),
)

# Roll-ups of `changes`, written by the statement that writes those: subscribers who left, by hour of the event; and
# how many rows of each consent `subscriptions` has for a list.
opt_out_hours = Table(
    "opt_out_hours",
    metadata,
    Column("sender", Text, primary_key=True),
    Column("list", Text, primary_key=True),
    Column("hour", _TIME, primary_key=True),
    Column("reason", Text, primary_key=True),
    Column("total", BigInteger, nullable=False),
)
list_sizes = Table(
    "list_sizes",
    metadata,
    Column("sender", Text, primary_key=True),
    Column("list", Text, primary_key=True),
    Column("opted_in", BigInteger, nullable=False),
    Column("opted_out", BigInteger, nullable=False),
)

# Questions to the Reassigned Numbers Database, kept as evidence: the number and the date of consent that were asked
# for, when, by which way, and the answer (null: none yet).
rnd_checks = Table(
    "rnd_checks",
    metadata,
    Column("number", Text, primary_key=True),
    Column("consented_on", Date, primary_key=True),
    Column("asked_at", _TIME, primary_key=True),
    Column("via", Text, nullable=False),
    Column("answer", Text),
    Column("answered_at", _TIME),
    Column("detail", Text),
)

# Numbers that were erased, as HMAC-SHA256: an opt-in must be newer than `at`. The key stands beside them as the two
# padded blocks that an HMAC begins with, so that PostgreSQL can make one with its own sha256.
erased = Table(
    "erased",
    metadata,
    Column("digest", LargeBinary, primary_key=True),
    Column("at", _TIME, nullable=False),
)
erasure_key = Table(
    "erasure_key",
    metadata,
    Column("one", Boolean, primary_key=True, server_default=text("true")),
    Column("inner_pad", LargeBinary, nullable=False),
    Column("outer_pad", LargeBinary, nullable=False),
)
