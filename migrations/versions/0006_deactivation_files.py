"""Deactivation files, and the numbers that only such a file has spoken of."""

from alembic import op

revision = "0006"
down_revision = "0005"

STATEMENTS = (
    "ALTER TABLE numbers ADD COLUMN noted_by bigint, ADD COLUMN noted_guard timestamptz",
    "DROP INDEX numbers_state",
    """CREATE INDEX numbers_state ON numbers (state, number)
    WHERE state NOT IN ('active', 'unseen') AND noted_by IS NULL""",
    "DROP INDEX numbers_dead_since",
    "CREATE INDEX numbers_dead_since ON numbers (number) WHERE dead_since IS NOT NULL AND noted_by IS NULL",
    """CREATE TABLE feed_files (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, feed text NOT NULL, digest bytea NOT NULL, day date,
    carrier text, name text, fetched text, started_at timestamptz NOT NULL, finished_at timestamptz,
    staged bigint NOT NULL DEFAULT 0, whole boolean NOT NULL DEFAULT false, cut boolean NOT NULL DEFAULT false,
    acted bigint NOT NULL DEFAULT 0, records bigint NOT NULL DEFAULT 0, broken bigint NOT NULL DEFAULT 0,
    errors jsonb NOT NULL DEFAULT '[]', held bigint NOT NULL DEFAULT 0, noted bigint NOT NULL DEFAULT 0,
    changes bigint NOT NULL DEFAULT 0, opted_out bigint NOT NULL DEFAULT 0)""",
    "CREATE UNIQUE INDEX feed_files_digest ON feed_files (feed, digest, day) NULLS NOT DISTINCT",
    "CREATE UNIQUE INDEX feed_files_fetched ON feed_files (feed, fetched) WHERE fetched IS NOT NULL",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
