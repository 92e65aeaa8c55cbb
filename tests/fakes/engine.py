"""Stands for an engine process: remembers what it was given and says what the test tells it to."""

import threading

from worker.engine.generation import Finish, Generation, SampledToken, TokenOutput
from worker.engine_process import Sink


class FakeEngine:
    """With `script`, every generation gets those ids at once on submission, after those it brought along; `finish`
    comes with the last. Without, the test speaks through `say`. `fault` is raised by every submission."""

    def __init__(self, script: list[int] | None = None, finish: Finish | None = Finish.LENGTH) -> None:
        self.script = script
        self.finish = finish
        self.fault: Exception | None = None
        self.serving = threading.Event()
        self.serving.set()
        self.submitted: list[Generation] = []
        self.cancelled: list[str] = []
        self.sinks: dict[str, Sink] = {}

    def submit(self, generation: Generation, sink: Sink) -> None:
        if self.fault is not None:
            raise self.fault
        self.submitted.append(generation)
        self.sinks[generation.id] = sink
        if self.script is not None:
            self.say(generation.id, self.script[len(generation.generated) :], self.finish)

    def cancel(self, generation_id: str) -> None:
        self.cancelled.append(generation_id)
        self.sinks.pop(generation_id, None)

    def wait_until_serving(self, timeout_s: float) -> bool:
        return self.serving.wait(timeout_s)

    def say(self, generation_id: str, ids: list[int], finish: Finish | None = None) -> None:
        output = TokenOutput(generation_id, [SampledToken(i) for i in ids], finish, cached_tokens=3)
        if (sink := self.sinks.get(generation_id)) is not None:
            sink.on_output(output)
