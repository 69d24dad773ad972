"""Views of one moment: a statement sees each number as it stands when it begins. By a clock that ran on between two
looks at one row, a number that lapsed just then stood in `number_status` twice, suspended and active.
"""

from alembic import op

revision = "0009"
down_revision = "0008"

STATEMENTS = (
    """CREATE OR REPLACE VIEW published.number_status AS
    SELECT n.number, s.state, s.state IN ('active', 'unseen') AS sendable, s.reason, s.waiting_for, s.until,
           coalesce(n.carrier ->> 'name', n.carrier ->> 'name_raw') AS carrier, n.carrier ->> 'mcc' AS mcc,
           n.carrier ->> 'mnc' AS mnc, n.carrier ->> 'line_type' AS line_type,
           (n.carrier ->> 'ported')::boolean AS ported, s.changed_at
    FROM numbers n CROSS JOIN LATERAL (
        SELECT n.state, n.reason, n.waiting_for, n.until, n.changed_at
        WHERE n.until IS NULL OR n.until > statement_timestamp()
        UNION ALL (
        SELECT step ->> 'state', step ->> 'reason', step ->> 'waiting_for', (step ->> 'until')::timestamptz,
               lag((step ->> 'until')::timestamptz) OVER (ORDER BY place)
        FROM jsonb_array_elements(n.steps) WITH ORDINALITY AS steps (step, place)
        WHERE n.until <= statement_timestamp()
        ORDER BY (step ->> 'until' IS NULL OR (step ->> 'until')::timestamptz > statement_timestamp()) DESC, place
        LIMIT 1)
    ) s""",
    """CREATE OR REPLACE VIEW published.sendable AS
    SELECT s.number, s.sender, s.list
    FROM subscriptions s JOIN numbers n USING (number)
    WHERE s.consent = 'opted_in'
      AND (n.dead_since IS NULL OR s.opted_in_at > n.dead_since)
      AND CASE WHEN n.until IS NULL OR n.until > statement_timestamp() THEN n.state = 'active'
          ELSE (SELECT step ->> 'state' = 'active'
                FROM jsonb_array_elements(n.steps) WITH ORDINALITY AS steps (step, place)
                WHERE step ->> 'until' IS NULL OR (step ->> 'until')::timestamptz > statement_timestamp()
                ORDER BY place LIMIT 1) END
      AND NOT EXISTS (SELECT FROM sender_blocks b WHERE b.number = s.number AND b.sender = s.sender)""",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
