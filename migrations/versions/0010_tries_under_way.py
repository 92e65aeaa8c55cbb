"""Counts the tries that are under way to a target for one claim at a time."""

from alembic import op

revision = "0010"
down_revision = "0009"

# A function, because each statement of a function sees what was committed before the statement: the count stands behind
# the lock and in one journey with the claim, while the claim itself sees what was committed before it began.
TRIES_UNDER_WAY = """
    CREATE FUNCTION webhook_tries_under_way(place text, lease interval) RETURNS bigint LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM pg_advisory_xact_lock(x'76776864'::int, hashtext(place));
        RETURN (
            SELECT count(*) FROM webhook_deliveries
            WHERE target = place AND leased_until > clock_timestamp() AND leased_until <= clock_timestamp() + 2 * lease
        );
    END $$"""


def upgrade() -> None:
    op.execute(TRIES_UNDER_WAY)


def downgrade() -> None:
    op.execute("DROP FUNCTION webhook_tries_under_way(text, interval)")
