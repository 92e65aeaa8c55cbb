"""Keeps an engine process running and gives each generation's outputs to its sink. Knows no jobs.

One thread starts the child, receives everything it says, notices its death or its silence, tells the generations that
died with it, and starts another after a pause. Submissions made while no child is ready wait for the next one.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, assert_never

from worker.engine.generation import EngineStats, Finish, Generation, TokenOutput
from worker.engine.messages import Cancel, Fatal, FromEngine, Loading, Outputs, Ready, Refused, Stats, Submit
from worker.engine_link import EngineLink, LinkClosed
from worker.errors import EngineUnavailable
from worker.loading import LoadingReport
from worker.settings import EngineCommand

log = logging.getLogger(__name__)

_LOOK_EVERY_S = 0.5
_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 30.0
_STOP_S = 5.0
_LOADING_SILENCE_S = 10.0

_MOST_FRUITLESS = 10
"""Engines in a row that served and ended no generation. Each cost all jobs that it had an attempt: it is not the jobs.
These are more than a few jobs that end engines take until they are quarantined."""


class Sink(Protocol):
    """What is told of one generation, on the engine's thread: must not block. After the output with `finish`, or one
    of the other two, nothing follows."""

    def on_output(self, output: TokenOutput) -> None: ...

    def on_refused(self, code: str, message: str) -> None: ...

    def on_engine_died(self, detail: str) -> None: ...


@dataclass(frozen=True, slots=True)
class EngineTimes:
    """`start_s`: from start to ready. `silence_s`: how long an engine may say nothing, whether it loads, works or
    idles. `restarts`: failed starts in a row after which it is given up."""

    start_s: float
    silence_s: float
    restarts: int


@dataclass(slots=True)
class _Entry:
    generation: Generation
    sink: Sink
    sent: bool = False


class EngineProcess:
    """Thread-safe. `on_given_up` is called once, on the engine's thread, when the engine cannot be kept running:
    when it does not start, or no engine of many ends a single generation."""

    def __init__(
        self, command: EngineCommand, times: EngineTimes, on_given_up: Callable[[str], None] = lambda _: None
    ) -> None:
        self._command = command
        self._times = times
        self._on_given_up = on_given_up
        self._entries: dict[str, _Entry] = {}
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._link: EngineLink | None = None
        self._ready: Ready | None = None
        self._stats: EngineStats | None = None
        self._failure: str | None = None
        self._closing = threading.Event()
        self._heard = time.monotonic()
        self._may_be_silent = False
        self._fruitful = False
        self._loading = LoadingReport()
        # The child is tied to this thread, which therefore lives as long as the worker.
        self._thread = threading.Thread(target=self._supervise, name="engine", daemon=True)

    def start(self) -> Ready:
        """Starts the engine and waits until it serves. Raises EngineUnavailable when it never does."""
        self._thread.start()
        with self._changed:
            self._changed.wait_for(lambda: self._ready is not None or self._failure is not None)
            if self._ready is None:
                raise EngineUnavailable(self._failure)
            return self._ready

    def submit(self, generation: Generation, sink: Sink) -> None:
        """Hands the generation over, now or as soon as an engine is ready. Its id must never have been used: an engine
        may still speak of one that was cancelled."""
        entry = _Entry(generation, sink)
        with self._lock:
            failure = self._failure
            if failure is None:
                self._entries[generation.id] = entry
            link = self._link if self._ready is not None else None
            entry.sent = link is not None
        if failure is not None:
            sink.on_engine_died(failure)
        elif link is not None:
            link.send(Submit(generation))

    def cancel(self, generation_id: str) -> None:
        """Forgets the generation: its sink hears nothing more. Unknown ids are ignored."""
        with self._lock:
            entry = self._entries.pop(generation_id, None)
            link = self._link
        if entry is not None and entry.sent and link is not None:
            link.send(Cancel(generation_id))

    @property
    def stats(self) -> EngineStats | None:
        """The engine's last statistics."""
        return self._stats

    def wait_until_serving(self, timeout_s: float) -> bool:
        """Whether an engine is ready, now or within the time."""
        with self._changed:
            return self._changed.wait_for(lambda: self._ready is not None, timeout_s)

    @property
    def pid(self) -> int | None:
        link = self._link
        return link.pid if link is not None else None

    def close(self) -> None:
        """Stops the engine; generations that still run hear that it died."""
        self._closing.set()
        link = self._link
        if link is not None:
            link.stop(_STOP_S)
        if self._thread.ident is not None:
            self._thread.join(_STOP_S)

    def _supervise(self) -> None:
        failures = fruitless = 0
        while not self._closing.is_set():
            served, detail = self._life()
            if self._closing.is_set():
                break
            failures = 0 if served else failures + 1
            fruitless = 0 if self._fruitful else fruitless + served
            log.error("engine process lost: %s", detail, extra={"action": "engine_died"})
            if failures > self._times.restarts or fruitless >= _MOST_FRUITLESS:
                self._give_up(detail)
                return
            self._closing.wait(min(_FIRST_PAUSE_S * 2**failures, _LONGEST_PAUSE_S))

    def _life(self) -> tuple[bool, str]:
        """One child from start to death: whether it ever served, and how it ended."""
        started = time.monotonic()
        try:
            link = EngineLink.start(self._command, self._times.start_s)
        except EngineUnavailable as exc:
            return False, str(exc)
        with self._lock:
            self._link = link
        self._loading = LoadingReport()
        detail = ""
        self._heard = time.monotonic()
        self._may_be_silent = self._fruitful = False
        try:
            while not self._closing.is_set():
                looked = time.monotonic()
                for message in link.receive(_LOOK_EVERY_S):
                    detail = self._take(message, link) or detail
                self._watch(started, looked)
        except LinkClosed as exc:
            detail = detail or str(exc)
        except EngineUnavailable as exc:
            detail = str(exc)
        return self._bury(link, detail)

    def _bury(self, link: EngineLink, detail: str) -> tuple[bool, str]:
        with self._lock:
            served = self._ready is not None
            self._link = self._ready = self._stats = None
            lost = [entry for entry in self._entries.values() if entry.sent]
            for entry in lost:
                del self._entries[entry.generation.id]
        detail = f"{link.kill()}; {detail}"
        for entry in lost:
            entry.sink.on_engine_died(detail)
        return served, detail

    def _watch(self, started: float, looked: float) -> None:
        """Raises EngineUnavailable for a child that takes too long to load, or is silent: also an idle one speaks each
        second. `looked` is when this look began."""
        now = time.monotonic()
        if self._ready is None and now - started > self._times.start_s:
            raise EngineUnavailable(f"not ready within {self._times.start_s:.0f} s")
        if now - looked > 2 * _LOOK_EVERY_S:
            # This process stood still: that says nothing of the other, which may have stood still with it.
            self._heard = now
        # A library that is loaded from a cold disk keeps the interpreter, and with it the pulse.
        limit_s = self._times.silence_s if self._ready else max(self._times.silence_s, _LOADING_SILENCE_S)
        if self._may_be_silent:
            limit_s = self._times.start_s
        if now - self._heard > limit_s:
            raise EngineUnavailable(f"silent for {limit_s:.0f} s")

    def _take(self, message: FromEngine, link: EngineLink) -> str:
        """Acts on one message; the text of a Fatal."""
        self._heard = time.monotonic()
        match message:
            case Outputs(outputs):
                for output in outputs:
                    self._on_output(output, link)
            case Stats(stats):
                self._stats = stats
            case Loading(done, what, silent):
                self._may_be_silent = silent
                self._loading.tell(done, what)
            case Ready():
                self._on_ready(message, link)
            case Refused(generation_id, code, text):
                with self._lock:
                    refused = self._entries.pop(generation_id, None)
                if refused is not None:
                    refused.sink.on_refused(code, text)
            case Fatal(text):
                return text
            case _:
                assert_never(message)
        return ""

    def _on_output(self, output: TokenOutput, link: EngineLink) -> None:
        with self._lock:
            entry = self._entries.get(output.id)
            if entry is not None and output.finish is not None:
                del self._entries[output.id]
        self._fruitful = self._fruitful or output.finish in (Finish.STOP, Finish.LENGTH)
        if entry is not None:
            entry.sink.on_output(output)
        elif output.finish is None:
            # Its cancel overtook its submit.
            link.send(Cancel(output.id))

    def _on_ready(self, ready: Ready, link: EngineLink) -> None:
        log.info("engine serves on %s", ready.device, extra={"action": "engine_ready"})
        self._may_be_silent = False
        with self._changed:
            self._ready = ready
            waiting = [entry for entry in self._entries.values() if not entry.sent]
            for entry in waiting:
                entry.sent = True
            self._changed.notify_all()
        for entry in waiting:
            link.send(Submit(entry.generation))

    def _give_up(self, detail: str) -> None:
        with self._changed:
            self._failure = detail
            lost = list(self._entries.values())
            self._entries.clear()
            self._changed.notify_all()
        for entry in lost:
            entry.sink.on_engine_died(detail)
        self._on_given_up(detail)
