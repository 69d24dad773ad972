"""Receipts in, answers out: the first tables, the published views, the reader's role."""

from alembic import op

revision = "0001"
down_revision = None

TABLES = """
CREATE TABLE receipts (
    received_at timestamptz NOT NULL, key uuid NOT NULL, gateway text NOT NULL, account text NOT NULL,
    message_id text, number text, sender text, status text NOT NULL, code_space text, code text, reason text,
    carrier text, mcc text, mnc text, segment smallint, segments smallint, occurred_at timestamptz, sent_at timestamptz
) PARTITION BY RANGE (received_at);
CREATE INDEX receipts_message_id ON receipts (message_id, received_at);
CREATE INDEX receipts_number ON receipts (number, received_at);
CREATE INDEX receipts_received_at ON receipts USING brin (received_at);

CREATE TABLE receipt_keys (key uuid PRIMARY KEY, arrived_at timestamptz NOT NULL);
CREATE INDEX receipt_keys_arrived_at ON receipt_keys USING brin (arrived_at);

CREATE TABLE messages (
    gateway text, account text, message_id text, number text, sender text, carrier text, sent_at timestamptz,
    registered_at timestamptz NOT NULL, PRIMARY KEY (gateway, account, message_id)
);
CREATE INDEX messages_registered_at ON messages USING brin (registered_at);

CREATE TABLE unnamed (
    gateway text, account text, message_id text, key uuid, receipt json NOT NULL, received_at timestamptz NOT NULL,
    PRIMARY KEY (gateway, account, message_id, key)
);

CREATE TABLE numbers (
    number text PRIMARY KEY, facts json, steps jsonb NOT NULL DEFAULT '[]',
    state text NOT NULL DEFAULT 'unseen', reason text, waiting_for text, until timestamptz, dead_since timestamptz,
    carrier jsonb, changed_at timestamptz, last_receipt_at timestamptz
) WITH (fillfactor = 80);
CREATE INDEX numbers_until ON numbers (until) WHERE until IS NOT NULL;
CREATE INDEX numbers_state ON numbers (state, number) WHERE state NOT IN ('active', 'unseen');

CREATE TABLE sender_blocks (
    number text, sender text, reason text NOT NULL, at timestamptz NOT NULL, cause jsonb NOT NULL,
    PRIMARY KEY (number, sender)
);

CREATE TABLE subscriptions (
    number text, sender text, list text, facts json NOT NULL, consent text NOT NULL, opted_in_at timestamptz,
    reason text, code_space text, code text, at timestamptz NOT NULL, PRIMARY KEY (number, sender, list)
);
CREATE INDEX subscriptions_list ON subscriptions (sender, list, number);

CREATE TABLE changes (
    seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, number text NOT NULL, sender text, list text,
    kind text NOT NULL, before text, after text, reason text, cause jsonb NOT NULL,
    occurred_at timestamptz NOT NULL, committed_at timestamptz NOT NULL
);
CREATE INDEX changes_number ON changes (number, seq);
CREATE INDEX changes_committed_at ON changes USING brin (committed_at);

CREATE TABLE lookups (
    number text PRIMARY KEY, reason text NOT NULL, cause jsonb NOT NULL, asked_at timestamptz NOT NULL,
    due_at timestamptz NOT NULL
);
CREATE INDEX lookups_due_at ON lookups (due_at);

CREATE TABLE hourly_counts (
    hour timestamptz, sender text, carrier text, outcome text, total bigint NOT NULL,
    PRIMARY KEY (hour, sender, carrier, outcome)
);

CREATE TABLE unread (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, digest uuid NOT NULL UNIQUE, gateway text NOT NULL,
    account text NOT NULL, reason text NOT NULL, method text NOT NULL, headers jsonb NOT NULL, query text NOT NULL,
    body bytea NOT NULL, first_at timestamptz NOT NULL, last_at timestamptz NOT NULL, times integer NOT NULL DEFAULT 1
);

CREATE TABLE alarms (
    kind text, key text, since timestamptz NOT NULL, last_at timestamptz NOT NULL, count bigint NOT NULL,
    cleared_at timestamptz, PRIMARY KEY (kind, key)
);

CREATE TABLE codes (
    space text, code text, meaning text NOT NULL, level text NOT NULL, permanence text NOT NULL, reason text NOT NULL,
    confidence text NOT NULL, source text NOT NULL, PRIMARY KEY (space, code)
);

CREATE TABLE api_keys (
    id text PRIMARY KEY, name text NOT NULL, digest bytea NOT NULL, scopes text[] NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(), expires_at timestamptz, revoked_at timestamptz,
    first boolean NOT NULL DEFAULT false
);
"""

# A lapse holds to the instant without any job having run: the step in force is picked by the clock when it is read.
VIEWS = """
CREATE SCHEMA published;

CREATE VIEW published.number_status AS
SELECT n.number, s.state, s.state IN ('active', 'unseen') AS sendable, s.reason, s.waiting_for, s.until,
       coalesce(n.carrier ->> 'name', n.carrier ->> 'name_raw') AS carrier, n.carrier ->> 'mcc' AS mcc,
       n.carrier ->> 'mnc' AS mnc, n.carrier ->> 'line_type' AS line_type, (n.carrier ->> 'ported')::boolean AS ported,
       s.changed_at
FROM numbers n CROSS JOIN LATERAL (
    SELECT n.state, n.reason, n.waiting_for, n.until, n.changed_at
    WHERE n.until IS NULL OR n.until > clock_timestamp()
    UNION ALL (
    SELECT step ->> 'state', step ->> 'reason', step ->> 'waiting_for', (step ->> 'until')::timestamptz,
           lag((step ->> 'until')::timestamptz) OVER (ORDER BY place)
    FROM jsonb_array_elements(n.steps) WITH ORDINALITY AS steps (step, place)
    WHERE n.until <= clock_timestamp()
    ORDER BY (step ->> 'until' IS NULL OR (step ->> 'until')::timestamptz > clock_timestamp()) DESC, place
    LIMIT 1)
) s;

CREATE VIEW published.sender_blocks AS
SELECT number, sender, reason, at, cause ->> 'code_space' AS code_space, cause ->> 'code' AS code FROM sender_blocks;

CREATE VIEW published.sendable AS
SELECT s.number, s.sender, s.list
FROM subscriptions s JOIN numbers n USING (number)
WHERE s.consent = 'opted_in'
  AND (n.dead_since IS NULL OR s.opted_in_at > n.dead_since)
  AND CASE WHEN n.until IS NULL OR n.until > clock_timestamp() THEN n.state = 'active'
      ELSE (SELECT step ->> 'state' = 'active'
            FROM jsonb_array_elements(n.steps) WITH ORDINALITY AS steps (step, place)
            WHERE step ->> 'until' IS NULL OR (step ->> 'until')::timestamptz > clock_timestamp()
            ORDER BY place LIMIT 1) END
  AND NOT EXISTS (SELECT FROM sender_blocks b WHERE b.number = s.number AND b.sender = s.sender);

CREATE VIEW published.opt_outs AS
SELECT number, sender, list, reason, code_space, code, at FROM subscriptions WHERE consent = 'opted_out';

CREATE VIEW published.changes AS
SELECT seq, number, sender, list, kind, before AS "from", after AS "to", reason, cause, occurred_at, committed_at
FROM changes;

CREATE VIEW published.codes AS
SELECT space, code, meaning, level, permanence, reason, confidence, source FROM codes;
"""

# An owner without the right to make roles goes on without: `sendable doctor` names what is missing.
READER = """
DO $$ BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'sendable_reader') THEN
        CREATE ROLE sendable_reader LOGIN;
    END IF;
EXCEPTION WHEN insufficient_privilege OR duplicate_object OR unique_violation THEN NULL;
END $$;
DO $$ BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'sendable_reader') THEN
        GRANT USAGE ON SCHEMA published TO sendable_reader;
        GRANT SELECT ON ALL TABLES IN SCHEMA published TO sendable_reader;
    END IF;
END $$;
"""


def upgrade() -> None:
    for part in (TABLES, VIEWS):
        for statement in part.split(";\n"):
            if statement.strip():
                op.execute(statement)
    for block in READER.split("END $$;\n"):
        if block.strip():
            op.execute(block + "END $$")
