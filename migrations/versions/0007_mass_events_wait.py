"""Mass events wait: what the breaker counts, its baselines, and the quarantines that it opens."""

from alembic import op

revision = "0007"
down_revision = "0006"

STATEMENTS = (
    """CREATE TABLE quarantines (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, key text NOT NULL, gateway text NOT NULL,
    code_space text NOT NULL, code text NOT NULL, sender text NOT NULL, carrier text NOT NULL, reason text NOT NULL,
    seen bigint NOT NULL, allowed bigint NOT NULL, opened_at timestamptz NOT NULL, decision text,
    decided_at timestamptz, decided_by text
    )""",
    "CREATE UNIQUE INDEX quarantines_open ON quarantines (key) WHERE decision IS NULL",
    """CREATE TABLE breaker_hits (
    key text, number text, at timestamptz NOT NULL, quarantine bigint, PRIMARY KEY (key, number)
    ) WITH (fillfactor = 80)""",
    "CREATE INDEX breaker_hits_loose ON breaker_hits (key) WHERE quarantine IS NULL",
    "CREATE INDEX breaker_hits_held ON breaker_hits (quarantine, number) WHERE quarantine IS NOT NULL",
    """CREATE TABLE breaker_windows (
    key text, starts timestamptz, total bigint NOT NULL, PRIMARY KEY (key, starts)
    )""",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
