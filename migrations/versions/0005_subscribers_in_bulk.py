"""Subscribers in bulk, roll-ups of consent, evidence of the Reassigned Numbers Database, erasure."""

from alembic import op

revision = "0005"
down_revision = "0004"

STATEMENTS = (
    """CREATE TABLE imports (
    id uuid PRIMARY KEY, staged_to bigint NOT NULL DEFAULT 0, told jsonb NOT NULL DEFAULT '{}',
    touched_at timestamptz NOT NULL
    )""",
    """CREATE TABLE import_lines (
    import uuid, line bigint, number text, sender text NOT NULL, list text NOT NULL, consented_at timestamptz NOT NULL,
    source text NOT NULL, evidence text, PRIMARY KEY (import, line, number)
    )""",
    """CREATE TABLE opt_out_hours (
    sender text, list text, hour timestamptz, reason text, total bigint NOT NULL,
    PRIMARY KEY (sender, list, hour, reason)
    )""",
    """CREATE TABLE list_sizes (
    sender text, list text, opted_in bigint NOT NULL, opted_out bigint NOT NULL, PRIMARY KEY (sender, list)
    )""",
    """CREATE INDEX changes_opt_outs ON changes (occurred_at)
    WHERE kind = 'list.opted_out' AND before = 'opted_in'""",
    "CREATE INDEX numbers_dead_since ON numbers (number) WHERE dead_since IS NOT NULL",
    """CREATE TABLE rnd_checks (
    number text, consented_on date, asked_at timestamptz, via text NOT NULL, answer text, answered_at timestamptz,
    detail text, PRIMARY KEY (number, consented_on, asked_at)
    )""",
    "CREATE TABLE erased (digest bytea PRIMARY KEY, at timestamptz NOT NULL)",
    """CREATE TABLE erasure_key (
    one boolean PRIMARY KEY DEFAULT true, inner_pad bytea NOT NULL, outer_pad bytea NOT NULL
    )""",
    # What an existing database has seen so far.
    """INSERT INTO opt_out_hours (sender, list, hour, reason, total)
    SELECT sender, list, date_trunc('hour', occurred_at, 'UTC'), coalesce(reason, ''), count(*)
    FROM changes WHERE kind = 'list.opted_out' AND before = 'opted_in' GROUP BY 1, 2, 3, 4""",
    """INSERT INTO list_sizes (sender, list, opted_in, opted_out)
    SELECT sender, list, count(*) FILTER (WHERE consent = 'opted_in'), count(*) FILTER (WHERE consent = 'opted_out')
    FROM subscriptions GROUP BY 1, 2""",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
