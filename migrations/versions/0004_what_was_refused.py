"""What was refused, what nobody knows, and whom we asked: requests to prove again, unknown words, asked messages."""

from alembic import op

revision = "0004"
down_revision = "0003"

STATEMENTS = (
    """CREATE TABLE refused (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, gateway text NOT NULL, account text NOT NULL,
    arrived_at timestamptz NOT NULL, method text NOT NULL, url text NOT NULL, headers jsonb NOT NULL,
    query text NOT NULL, body bytea NOT NULL, salt bytea NOT NULL
    )""",
    "CREATE INDEX refused_gateway ON refused (gateway, id)",
    """CREATE TABLE unknown_words (
    gateway text, account text, kind text, space text, word text, status text NOT NULL, message_id text,
    first_at timestamptz NOT NULL, last_at timestamptz NOT NULL, count bigint NOT NULL,
    PRIMARY KEY (gateway, account, kind, space, word)
    )""",
    "ALTER TABLE messages ADD COLUMN asked_at timestamptz",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
