"""What one bell makes a thread do: deliver until nothing is due."""

import logging
import threading

from jobs.errors import StoreUnavailable
from jobs.webhooks.errands import PostgresErrands
from jobs.webhooks.sender import Sender

log = logging.getLogger(__name__)


class Courier:
    """Thread-safe: each bell has a thread of its own."""

    def __init__(self, errands: PostgresErrands, sender: Sender) -> None:
        self._errands = errands
        self._sender = sender
        self._stopping = threading.Event()

    def answer(self) -> None:
        """Delivers what is due. Without the database it returns: bells are rung again."""
        try:
            while not self._stopping.is_set() and self._deliver():
                pass
        except StoreUnavailable as exc:
            log.warning("deliveries wait: %s", exc, extra={"action": "no_database"})

    def stop(self) -> None:
        """What is under way still ends."""
        self._stopping.set()

    def _deliver(self) -> bool:
        errand = self._errands.claim()
        if errand is None:
            return False
        answer = self._sender.send(errand.url, errand.event, errand.keys)
        state = self._errands.settle(errand, answer)
        log.info(
            "%s of %s, try %d: %s, %s",
            errand.event.type,
            errand.event.subject,
            errand.attempt,
            answer.detail or answer.status_code,
            state or "too late",
            extra={"action": "webhook.tried", "delivery": errand.delivery_id, "status": answer.status_code},
        )
        return True
