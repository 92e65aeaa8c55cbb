"""Images and videos through a real worker: what the model saw is told by the usage and the answer."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from cli.services import Services
from jobs import connect
from jobs.counting import Counted, CountPrompt, CountRefused
from jobs.job import Job, JobState
from jobs.request import ChatRequest, ImagePart, Message, Role, Sampling, TextPart, VideoPart
from tests.fixtures.clips import animation, clip
from tests.fixtures.hostile import many_scans
from tests.fixtures.pictures import png
from tests.fixtures.worker import MODEL, WorkerBench, open_bench
from worker.prompt import DEFAULT_SYSTEM
from worker.tokenizer import ChatTokenizer

pytestmark = pytest.mark.integration

PER_TILE = 16
QUESTION = "What is happening here?"


class Videos(BaseHTTPRequestHandler):
    """`/clip.mp4` is a clip; everything else is away for now."""

    def do_GET(self) -> None:
        body = clip() if self.path == "/clip.mp4" else b""
        self.send_response(200 if body else 503)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture(scope="module")
def host() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Videos)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="module")
def bench(
    services: Services, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory, host: str
) -> Iterator[WorkerBench]:
    with open_bench(services, tiny_model, tmp_path_factory.mktemp("media")) as bench:
        (bench.folder / "clips").mkdir()
        bench.start(
            VLMQ_WORKER_ALLOWED_FILE_ROOTS=f"{bench.folder}/clips",
            VLMQ_WORKER_ALLOWED_PRIVATE_HOSTS=host,
            VLMQ_WORKER_MAX_REQUEST_TILES="20",
            VLMQ_WORKER_MAX_VIDEO_BYTES="100000",
            VLMQ_WORKER_MEDIA_BACKOFF_S="0.01",
            VLMQ_WORKER_IMAGE_DECODE_S="2",
        ).wait_ready()
        yield bench


def stored(bench: WorkerBench, data: bytes) -> str:
    return f"blob:{bench.blobs.put(data)}"


def asked(bench: WorkerBench, *parts: object, **values: object) -> Job:
    return bench.wait(bench.submit(*parts, TextPart(QUESTION), max_tokens=4, **values))


def expected_tokens(model: Path, frames: int) -> int:
    """The template's own tokens, and for each frame its line, its two marks and its visual tokens."""
    encode = ChatTokenizer.load(model).encode
    turns = len(encode(f"system\n{DEFAULT_SYSTEM}")) + len(encode("\n")) + len(encode("assistant\n")) + 5
    first = len(encode("user\nFrame1: "))
    lines = sum(len(encode(f"\nFrame{k}: ")) for k in range(2, frames + 1))
    question = len(encode(f"\n{QUESTION}")) + len(encode("\n"))
    return turns + first + lines + question + frames * (PER_TILE + 2)


@pytest.mark.parametrize("frames", [None, 1, 3, 12])
def test_video_takes_the_tokens_of_its_lines_and_frames(bench: WorkerBench, tiny_model: Path, frames: int | None):
    job = asked(bench, VideoPart(stored(bench, clip()), frames))
    assert job.error is None
    assert job.usage is not None
    assert job.usage.image_tokens == (frames or 8) * PER_TILE
    assert job.usage.prompt_tokens == expected_tokens(tiny_model, frames or 8)


def test_tokens_counted_beforehand_are_those_of_a_job_with_videos_and_images(bench: WorkerBench, host: str):
    counting = connect.counting(bench.settings, connect.redis_client(bench.settings))
    parts = (VideoPart(f"http://{host}/clip.mp4", 3), ImagePart(stored(bench, png(500, 200))), TextPart("What?"))
    request = ChatRequest((Message(Role.USER, parts),), Sampling(seed=1), max_tokens=4)
    counted = counting.ask(MODEL, CountPrompt(request), 30.0)
    job = bench.wait(bench.submit(*parts, max_tokens=4))
    assert isinstance(counted, Counted) and job.usage is not None
    assert (counted.prompt_tokens, counted.image_tokens) == (job.usage.prompt_tokens, job.usage.image_tokens)
    assert counted.room == 4
    missing = ChatRequest((Message(Role.USER, (ImagePart("blob:" + "0" * 64),)),), Sampling(seed=1))
    refused = counting.ask(MODEL, CountPrompt(missing), 30.0)
    assert isinstance(refused, CountRefused) and refused.code == "image_file_not_found"


def test_video_of_a_file_a_host_and_the_store_give_the_same_answer(bench: WorkerBench, host: str):
    (bench.folder / "clips" / "a.mp4").write_bytes(clip())
    sources = [stored(bench, clip()), f"file://{bench.folder}/clips/a.mp4", f"http://{host}/clip.mp4"]
    jobs = [asked(bench, VideoPart(source, 4)) for source in sources]
    assert [job.error for job in jobs] == [None] * 3
    assert len({job.text for job in jobs}) == 1
    assert len({job.usage.prompt_tokens for job in jobs if job.usage}) == 1


@pytest.mark.parametrize("kind", ["GIF", "WEBP"])
def test_animation_is_a_video_and_as_an_image_its_first_frame(bench: WorkerBench, kind: str):
    source = stored(bench, animation(kind=kind))
    as_video, as_image = asked(bench, VideoPart(source, 5)), asked(bench, ImagePart(source, "low"))
    assert as_video.usage is not None
    assert as_image.usage is not None
    assert (as_video.usage.image_tokens, as_image.usage.image_tokens) == (5 * PER_TILE, PER_TILE)


def test_job_of_slow_images_fails_with_the_limit_and_holds_up_no_other(bench: WorkerBench):
    slow, usual = stored(bench, many_scans(6000, 15_000)), stored(bench, png(200, 100))
    hostile = [bench.submit(*[ImagePart(slow, "low")] * 2, TextPart(QUESTION), max_tokens=4) for _ in range(2)]
    jobs = [asked(bench, ImagePart(usual)) for _ in range(3)]
    assert [job.error for job in jobs] == [None] * 3
    assert not any(bench.store.get(job_id).state.terminal for job_id in hostile)
    for job in map(bench.wait, hostile):
        assert job.error is not None
        assert job.error.code == "image_too_large"
        assert "more than 2 s of processor time" in job.error.message
    assert asked(bench, ImagePart(usual)).error is None


@pytest.mark.parametrize(("detail", "tiles"), [("low", 1), ("auto", 3), ("high", 3)])
def test_detail_of_an_image_decides_its_tiles(bench: WorkerBench, detail: str, tiles: int):
    job = asked(bench, ImagePart(stored(bench, png(200, 100)), detail))
    assert job.usage is not None
    assert job.usage.image_tokens == tiles * PER_TILE


def test_frames_and_images_share_the_tile_budget_and_the_error_names_both_numbers(bench: WorkerBench):
    video, image = VideoPart(stored(bench, clip()), 18), ImagePart(stored(bench, png(200, 100)))
    assert asked(bench, video).error is None
    job = asked(bench, video, image)
    assert job.state is JobState.FAILED
    assert job.error is not None
    assert job.error.code == "image_too_large"
    assert "1 images and 18 frames of videos make 21 tiles, more than 20" in job.error.message
    alone = asked(bench, VideoPart(stored(bench, clip()), 21))
    assert alone.error is not None
    assert alone.error.code == "video_too_large"
    assert "21 frames of videos make 21 tiles, more than 20" in alone.error.message


@pytest.mark.parametrize(
    ("data", "part", "code"),
    [
        (clip()[:-50], VideoPart("", 2), "video_parse_error"),
        (b"no video", VideoPart("", 2), "invalid_video"),
        (png(), VideoPart("", 2), "unsupported_video_media_type"),
        (b"x" * 100_001, VideoPart("", 2), "video_file_too_large"),
        (clip(), VideoPart("", 2, start=5.0), "invalid_video_bounds"),
        (clip(), VideoPart("", 33), "invalid_video_bounds"),
    ],
    ids=["truncated", "no video", "a picture", "too long", "bounds", "frames"],
)
def test_wrong_video_fails_the_job_with_its_code(bench: WorkerBench, data: bytes, part: VideoPart, code: str):
    job = asked(bench, VideoPart(stored(bench, data), part.num_segments, part.start))
    assert job.state is JobState.FAILED
    assert job.error is not None
    assert (job.error.code, job.error.param) == (code, "messages")


def test_video_that_cannot_be_had_fails_with_the_codes_of_videos(bench: WorkerBench, host: str):
    codes = {
        "blob:" + "0" * 64: "video_file_not_found",
        "file:///etc/hostname": "invalid_video_url",
        "http://10.0.0.1/a.mp4": "invalid_video_url",
        f"http://{host}/away.mp4": "failed_to_download_video",
    }
    for source, code in codes.items():
        job = asked(bench, VideoPart(source), max_attempts=1)
        assert job.error is not None
        assert job.error.code == code, source
