"""A door-bell that only remembers who rang, and control words that are only written down."""


class FakeQueue:
    """`works` False: the broker is away."""

    def __init__(self, works: bool = True) -> None:
        self.works = works
        self.rung: list[tuple[str, str]] = []

    def waiting(self, model: str) -> int | None:
        return sum(rung == model for rung, _ in self.rung) if self.works else None

    def ring(self, model: str, job_id: str) -> bool:
        if self.works:
            self.rung.append((model, job_id))
        return self.works


class FakeControl:
    def __init__(self) -> None:
        self.stopped: list[tuple[str, str]] = []

    def stop_job(self, worker: str, job_id: str) -> None:
        self.stopped.append((worker, job_id))
