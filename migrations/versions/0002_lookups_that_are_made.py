"""Lookups that are made: steps, leases, the answers of providers, what was spent."""

from alembic import op

revision = "0002"
down_revision = "0001"

STATEMENTS = (
    """ALTER TABLE lookups ADD COLUMN step smallint NOT NULL DEFAULT 0, ADD COLUMN tries smallint NOT NULL DEFAULT 0,
    ADD COLUMN lease_until timestamptz, ADD COLUMN token uuid, ADD COLUMN waiting_for text""",
    """CREATE TABLE lookup_answers (
    number text, asked_at timestamptz, provider text, outcome text NOT NULL, detail text NOT NULL, found jsonb,
    price numeric NOT NULL, kept_until timestamptz, config text NOT NULL, PRIMARY KEY (number, asked_at, provider)
    )""",
    "CREATE INDEX lookup_answers_asked_at ON lookup_answers USING brin (asked_at)",
    "CREATE TABLE lookup_days (day date PRIMARY KEY, spent numeric NOT NULL)",
    "CREATE TABLE lookup_spend (number text, day date, spent numeric NOT NULL, PRIMARY KEY (number, day))",
    "CREATE INDEX lookup_spend_day ON lookup_spend (day)",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
