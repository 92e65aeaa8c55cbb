"""Decoding where it is asked for, in this process and without limits of time."""

from worker.media.work import Result, Work, perform


class FakeDecoders:
    def ask(self, work: Work) -> Result:
        return perform(work)

    def close(self) -> None:
        return
