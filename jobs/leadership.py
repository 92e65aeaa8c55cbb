"""Which of several processes leads: the one that keeps renewing a row. Knows not what for.

A lead ends by itself when its holder dies, loses the database, or merely stands still; a lock of a session would stay
with a process that stands still for as long as its host keeps the connection. A holder that wakes up may act once more
beside the next one before it notices: what leaders do must bear that.
"""

from uuid import uuid4

from sqlalchemy import delete, func, or_
from sqlalchemy.dialects.postgresql import insert

from jobs.database import Database
from jobs.tables import leaders

MAINTENANCE = "maintenance"
BATCHES = "batches"


class Leadership:
    """`lease_s` is how long a lead lasts that nobody renews; `held` renews it. Not thread-safe."""

    def __init__(self, database: Database, name: str, lease_s: float) -> None:
        self._database = database
        self._name = name
        self._lease_s = lease_s
        self._me = uuid4().hex

    def held(self) -> bool:
        """Whether this process leads now; asks for the lead when it does not. Raises StoreUnavailable: then the lead
        lasts until its lease is over."""
        lease = func.make_interval(0, 0, 0, 0, 0, 0, self._lease_s)
        now = func.clock_timestamp()
        asked = insert(leaders).values(name=self._name, holder=self._me, renewed_at=now)
        # A stamp from the future is left from before the clock was set back.
        free = or_(leaders.c.renewed_at < now - lease, leaders.c.renewed_at > now + lease)
        won = asked.on_conflict_do_update(
            index_elements=["name"],
            set_={"holder": self._me, "renewed_at": now},
            where=or_(leaders.c.holder == self._me, free),
        ).returning(leaders.c.holder)
        return self._database.statement(lambda on: on.execute(won).scalar_one_or_none()) is not None

    def close(self) -> None:
        """Gives the lead up; `held` may ask for it again. Raises StoreUnavailable."""
        mine = delete(leaders).where(leaders.c.name == self._name, leaders.c.holder == self._me)
        self._database.statement(lambda on: on.execute(mine))
