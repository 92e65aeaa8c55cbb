"""Answers how many tokens requests would have, beside the jobs. Reads media as far as their sizes; runs nothing."""

import logging
import threading
from concurrent.futures import Future
from typing import Any

from jobs.counting import Answer, CountRefused, CountText, Question, RedisCounting
from jobs.errors import StreamUnavailable
from worker.errors import MediaUnavailable, RequestRefused, Stopped
from worker.prepare import Preparer

log = logging.getLogger(__name__)

_PAUSE_S = 1.0
COUNTERS = 2
"""So that one question that waits for a slow media host does not hold up all others."""


class TokenCounter:
    def __init__(self, counting: RedisCounting, model: str, preparer: Preparer) -> None:
        self._counting = counting
        self._model = model
        self._preparer = preparer
        self._closing = threading.Event()
        self._stopped: Future[Any] = Future()
        self._threads = [threading.Thread(target=self._run, name="counter", daemon=True) for _ in range(COUNTERS)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        self._closing.set()
        self._stopped.set_result(None)
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
                taken = self._counting.take(self._model)
                if taken is not None:
                    name, question = taken
                    self._counting.answer(name, self._count(question))
            except StreamUnavailable as exc:
                log.warning("no questions: %s", exc, extra={"action": "counting_waits"})
                self._closing.wait(_PAUSE_S)
            except Stopped:
                return

    def _count(self, question: Question) -> Answer:
        try:
            if isinstance(question, CountText):
                return self._preparer.count_text(question.text)
            return self._preparer.count(question.request, self._stopped)
        except RequestRefused as exc:
            return CountRefused(exc.code, str(exc), exc.param)
        except MediaUnavailable as exc:
            return CountRefused(exc.code, str(exc), "messages")
        except Stopped:
            raise
        except Exception as exc:
            # An outer edge, as a job's is: one question must not end the counting of all others.
            log.exception("counting broke", extra={"action": "counting_broke"})
            return CountRefused("server_error", f"the tokens cannot be counted: {type(exc).__name__}")
