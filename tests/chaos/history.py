"""Every change of a job's state, attempt or tokens, in the order in which the database made them, and by whom.

A trigger writes it down; who writes says so in the name of its connection. What ends twice, or is written by a worker
that has lost the job, is seen here even when no reader happened to look.
"""

from dataclasses import dataclass

from tests.chaos.ledger import Ledger

_TABLE = """
    CREATE SCHEMA IF NOT EXISTS chaos;
    CREATE TABLE chaos.writes (
        number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, job_id text NOT NULL, attempt int NOT NULL,
        worker text, before text NOT NULL, after text NOT NULL, tokens int NOT NULL, writer text NOT NULL,
        fault text NOT NULL DEFAULT '');
    CREATE FUNCTION chaos.note() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO chaos.writes (job_id, attempt, worker, before, after, tokens, writer) VALUES
            (NEW.id, OLD.attempt, OLD.worker, OLD.state, NEW.state, NEW.token_count,
             current_setting('application_name'));
        RETURN NULL;
    END $$;
    CREATE TRIGGER chaos_note AFTER UPDATE OF state, attempt, token_count ON jobs FOR EACH ROW
        EXECUTE FUNCTION chaos.note()
"""


@dataclass(frozen=True, slots=True)
class Write:
    """`attempt` and `worker` are the row's before it; `fault` is the last one that had begun, and the one before."""

    job_id: str
    attempt: int
    worker: str | None
    before: str
    after: str
    tokens: int
    writer: str
    """Of a process of the cluster: its name and which start of it, as its log is called."""
    faults: tuple[str, ...] = ()


class History:
    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def begin(self) -> None:
        """Before anything runs; the tables must be there."""
        with self._ledger.connection() as connection:
            connection.execute(_TABLE)

    def mark(self, fault: str) -> None:
        """It begins now."""
        self._ledger.patiently(
            "INSERT INTO chaos.writes (job_id, attempt, before, after, tokens, writer, fault) "
            "VALUES ('', 0, '', '', 0, '', %s) RETURNING number",
            fault,
        )

    def read(self) -> list[Write]:
        writes: list[Write] = []
        faults: list[str] = []
        for row in self._ledger.patiently("SELECT * FROM chaos.writes ORDER BY number"):
            if row["fault"]:
                faults.append(row["fault"])
                continue
            known = {name: row[name] for name in ("job_id", "attempt", "worker", "before", "after", "tokens", "writer")}
            writes.append(Write(**known, faults=tuple(faults[-2:])))
        return writes
