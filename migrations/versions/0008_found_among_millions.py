"""Found among millions: the numbers that are held, and the opt-outs of a part of an hour with those taken back."""

from alembic import op

revision = "0008"
down_revision = "0007"

STATEMENTS = (
    "CREATE INDEX numbers_held ON numbers (waiting_for, changed_at) WHERE state = 'held' AND noted_by IS NULL",
    "DROP INDEX changes_opt_outs",
    """CREATE INDEX changes_opt_outs ON changes (occurred_at)
    WHERE kind = 'list.opted_out' AND before = 'opted_in' OR kind = 'list.opted_in' AND reason IS NOT NULL""",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
