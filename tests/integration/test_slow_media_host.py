"""A real worker whose jobs have pictures at hosts that do not answer, beside jobs whose hosts do."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from cli.services import Services
from jobs import connect
from jobs.counting import Counted, CountPrompt
from jobs.job import JobState
from jobs.request import ChatRequest, ImagePart, Message, Role, Sampling, TextPart
from tests.fixtures.eventually import WITHIN_S, eventually
from tests.fixtures.pictures import png
from tests.fixtures.worker import MODEL, WorkerBench, open_bench
from worker.settings import ModelSettings
from worker.token_counter import COUNTERS

pytestmark = pytest.mark.integration

JOBS = ModelSettings.load(MODEL).job_threads + COUNTERS
SHARE, SPARE = JOBS // 4, JOBS // 2


class Handler(BaseHTTPRequestHandler):
    server: "PictureHost"

    def do_GET(self) -> None:
        self.server.answer(self)

    def log_message(self, *_: object) -> None:
        return


class PictureHost(ThreadingHTTPServer):
    """Answers every path with a picture, while `open` is set."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.open, self.counting = threading.Event(), threading.Lock()
        self.held = self.answered = self.gone = 0

    def pictures(self, count: int) -> list[ImagePart]:
        url = f"http://127.0.0.1:{self.server_port}"
        return [ImagePart(f"{url}/{k}.png", "low") for k in range(count)]

    def answer(self, handler: Handler) -> None:
        with self.counting:
            self.held += 1
        # Nothing more comes from who asked; its end does.
        handler.connection.settimeout(0.02)
        gone = False
        while not gone and not self.open.is_set():
            with suppress(TimeoutError):
                gone = handler.connection.recv(1) == b""
        with self.counting:
            self.held -= 1
            self.answered += not gone
            self.gone += gone
        if gone:
            return
        body = png(16, 16)
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)


@contextmanager
def picture_host() -> Iterator[PictureHost]:
    server = PictureHost()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield server
    server.open.set()
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="module")
def bench(services: Services, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerBench]:
    with open_bench(services, tiny_model, tmp_path_factory.mktemp("slow")) as bench:
        bench.start(
            VLMQ_WORKER_ALLOWED_PRIVATE_HOSTS="127.0.0.1,localhost",
            VLMQ_WORKER_READ_TIMEOUT_S="300",
            VLMQ_WORKER_FETCH_TIMEOUT_S="300",
        ).wait_ready()
        yield bench


@pytest.fixture
def slow() -> Iterator[PictureHost]:
    with picture_host() as server:
        yield server


@pytest.fixture
def fast() -> Iterator[PictureHost]:
    with picture_host() as server:
        server.open.set()
        yield server


@pytest.mark.parametrize(("jobs", "held"), [(1, SHARE), (6, 6 + SPARE)])
def test_jobs_whose_media_host_is_silent_hold_up_no_job_of_another_host(
    bench: WorkerBench, slow: PictureHost, fast: PictureHost, jobs: int, held: int
):
    waiting = [bench.submit(*slow.pictures(32), TextPart("What?"), max_tokens=4) for _ in range(jobs)]
    eventually("the jobs hold what threads they may", lambda: slow.held == held)
    elsewhere = [
        ImagePart(picture.source.replace("127.0.0.1", "localhost"), picture.detail) for picture in fast.pictures(3)
    ]
    quick = [bench.submit(*elsewhere, TextPart("What?"), max_tokens=4) for _ in range(4)]
    assert [bench.wait(job_id).error for job_id in quick] == [None] * 4
    assert slow.answered == 0
    assert not any(bench.store.get(job_id).state.terminal for job_id in waiting)
    slow.open.set()
    assert {bench.wait(job_id).state for job_id in waiting} <= {JobState.COMPLETED, JobState.INCOMPLETE}
    assert slow.answered == 32 * jobs


def test_silent_media_host_holds_up_no_count_of_tokens(bench: WorkerBench, slow: PictureHost, fast: PictureHost):
    waiting = [bench.submit(*slow.pictures(32), TextPart("What?"), max_tokens=4) for _ in range(6)]
    eventually("the jobs hold what threads they may", lambda: slow.held == 6 + SPARE)
    parts = (*fast.pictures(1), TextPart("What?"))
    request = ChatRequest((Message(Role.USER, parts),), Sampling(seed=1), max_tokens=4)
    counting = connect.counting(bench.settings, connect.redis_client(bench.settings))
    assert isinstance(counting.ask(MODEL, CountPrompt(request), WITHIN_S), Counted)
    assert slow.answered == 0
    slow.open.set()
    assert all(bench.wait(job_id).error is None for job_id in waiting)


def test_pictures_of_a_cancelled_job_are_not_waited_for(bench: WorkerBench, slow: PictureHost):
    jobs = [bench.submit(*slow.pictures(32), TextPart("What?"), max_tokens=4) for _ in range(2)]
    eventually("the jobs hold what threads they may", lambda: slow.held == 2 * SHARE)
    bench.store.cancel(jobs[0])
    eventually("those of one are given up", lambda: slow.gone == SHARE)
    slow.open.set()
    assert bench.wait(jobs[1]).error is None
    assert (slow.answered, slow.gone) == (32, SHARE)
