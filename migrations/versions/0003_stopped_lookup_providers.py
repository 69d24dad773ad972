"""Lookup providers that refuse our account are stopped for all processes."""

from alembic import op

revision = "0003"
down_revision = "0002"

STATEMENTS = (
    """CREATE TABLE lookup_stops (
    provider text, config text, error text NOT NULL, since timestamptz NOT NULL, PRIMARY KEY (provider, config)
    )""",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
