"""Hostile files against the real decoders: each costs itself alone, and the next picture is decoded as ever."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.fixtures import hostile
from tests.fixtures.eventually import eventually
from tests.fixtures.pictures import png
from tests.fixtures.processes import has_ended
from worker.engine.config import TilingConfig
from worker.errors import MediaUnavailable
from worker.media.decoders import Decoders
from worker.media.errors import MediaRefused
from worker.media.image import ImageLimits
from worker.media.segments import Segments
from worker.media.video_limits import VideoLimits
from worker.media.work import Cut, ImageWork, Pieces, Size, VideoWork

pytestmark = pytest.mark.integration

CUT = Cut(TilingConfig(1, 12, True), 448)


def image(data: bytes, decode_s: float = 10.0) -> ImageWork:
    return ImageWork(data, ImageLimits(50_000_000, decode_s=decode_s), CUT)


@pytest.fixture(scope="module")
def slow() -> ImageWork:
    """Milliseconds for each scan: a minute of processor time in less than a megabyte."""
    data = hostile.many_scans(6000, 15_000)
    assert len(data) < 1_000_000
    return image(data, decode_s=20)


@pytest.fixture
def decoders() -> Iterator[Decoders]:
    made = Decoders()
    yield made
    made.close()


def usable(decoders: Decoders) -> bool:
    answer = decoders.ask(image(png(900, 450)))
    return isinstance(answer, Pieces) and answer.images[0].tiles == 3


def busy(decoders: Decoders, count: int = 1) -> list[psutil.Process]:
    """The decoders that have computed for a while."""

    def found() -> list[psutil.Process]:
        children = psutil.Process(decoders.pid).children() if decoders.pid else []
        working = [child for child in children if child.cpu_times().user > 0.2]
        return working if len(working) >= count else []

    seen = eventually("decoders work", found)
    assert isinstance(seen, list)
    return seen


def asking(decoders: Decoders, work: ImageWork) -> tuple[threading.Thread, list[BaseException]]:
    """Asks on a thread; the list has what was raised, once the thread is over."""
    raised: list[BaseException] = []

    def ask() -> None:
        try:
            decoders.ask(work)
        except (MediaRefused, MediaUnavailable) as exc:
            raised.append(exc)

    thread = threading.Thread(target=ask)
    thread.start()
    return thread, raised


def test_jpeg_of_very_many_scans_is_refused_with_the_limit(decoders: Decoders, slow: ImageWork) -> None:
    with pytest.raises(MediaRefused, match=r"more than 0.5 s of processor time") as refused:
        decoders.ask(image(slow.data, decode_s=0.5))
    assert refused.value.code == "image_too_large"
    assert usable(decoders)


def test_other_pictures_do_not_wait_for_slow_ones(decoders: Decoders, slow: ImageWork) -> None:
    asked = [asking(decoders, slow) for _ in range(8)]
    busy(decoders)
    assert all(usable(decoders) for _ in range(4))
    assert [thread.is_alive() for thread, _ in asked] == [True] * 8
    decoders.close()
    for thread, raised in asked:
        thread.join(60)
        assert [type(exc) for exc in raised] == [MediaUnavailable], raised


def test_what_takes_long_yields_to_other_pictures(decoders: Decoders, slow: ImageWork) -> None:
    thread, _ = asking(decoders, slow)
    usual = psutil.Process(decoders.pid).nice()
    (child,) = busy(decoders)
    eventually("its priority is low", lambda: child.nice() == usual + 5)
    # One that waits for its next picture has its full priority.
    assert usable(decoders)
    others = [other for other in psutil.Process(decoders.pid).children() if other.pid != child.pid]
    time.sleep(2)
    assert usable(decoders)
    assert [other.nice() for other in others if other.is_running()].count(usual) >= 1
    child.send_signal(signal.SIGSEGV)
    thread.join(60)


@pytest.mark.parametrize(
    ("data", "codes"),
    [
        pytest.param(lambda: hostile.png_bomb(8000), {"image_too_large"}, id="64 megapixels in 60 KB"),
        pytest.param(lambda: hostile.png_bomb(7000), {None}, id="49 megapixels in 50 KB"),
        pytest.param(lambda: hostile.text_bomb(100, 3), {"invalid_image_format"}, id="zTXt of 100 MiB"),
        pytest.param(lambda: hostile.text_bomb(1, 300), {"invalid_image_format"}, id="300 zTXt of 1 MiB"),
        pytest.param(lambda: hostile.profile_bomb(300), {"invalid_image_format"}, id="iCCP of 300 MiB"),
        pytest.param(lambda: hostile.exif_bomb(5000), {None, "image_parse_error"}, id="EXIF that points at itself"),
        pytest.param(lambda: hostile.nested_webp(500_000), {"invalid_image_format"}, id="WebP of empty chunks"),
        pytest.param(lambda: hostile.chunked_gif(3_000_000), {None, "image_too_large"}, id="GIF of 3 million blocks"),
    ],
)
def test_bomb_is_refused_or_harmless(decoders: Decoders, data: Callable[[], bytes], codes: set[str | None]) -> None:
    code = None
    try:
        decoders.ask(image(data()))
    except MediaRefused as exc:
        code = exc.code
    assert code in codes
    assert usable(decoders)


def test_animation_of_millions_of_blocks_runs_out_of_time(decoders: Decoders) -> None:
    limits = VideoLimits(max_pixels=1_000_000, max_duration_s=60, max_frames=1000, decode_s=0.1)
    with pytest.raises(MediaRefused, match=r"video took more than 0.1 s of processor time") as refused:
        decoders.ask(VideoWork(hostile.chunked_gif(3_000_000), Segments(8), limits))
    assert refused.value.code == "video_decode_timeout"


def test_decoder_that_crashes_costs_its_picture(decoders: Decoders, slow: ImageWork) -> None:
    thread, raised = asking(decoders, slow)
    (child,) = busy(decoders)
    child.send_signal(signal.SIGSEGV)
    thread.join(60)
    (refused,) = raised
    assert isinstance(refused, MediaRefused) and refused.code == "image_parse_error"
    assert "SIGSEGV" in str(refused)
    assert usable(decoders)


def test_decoder_that_is_killed_is_tried_again_and_then_the_job(decoders: Decoders, slow: ImageWork) -> None:
    thread, raised = asking(decoders, slow)
    first = busy(decoders)
    first[0].kill()
    eventually("the first has ended", lambda: has_ended(first[0]))
    busy(decoders)[0].kill()
    thread.join(60)
    assert [type(exc) for exc in raised] == [MediaUnavailable]
    assert usable(decoders)


def test_decoder_that_stands_still_is_waited_for_only_so_long(decoders: Decoders, slow: ImageWork) -> None:
    thread, raised = asking(decoders, image(slow.data, decode_s=1))
    (child,) = busy(decoders)
    child.suspend()
    assert usable(decoders)
    thread.join(90)
    assert [type(exc) for exc in raised] == [MediaUnavailable]
    assert usable(decoders)


def test_process_that_is_killed_is_replaced(decoders: Decoders) -> None:
    assert usable(decoders)
    before = decoders.pid
    assert before is not None
    os.kill(before, signal.SIGKILL)
    assert usable(decoders)
    assert decoders.pid != before


def test_picture_that_needs_more_memory_than_its_pixels_is_refused(decoders: Decoders) -> None:
    """A video of one frame may be large; as an image of few pixels it has no room."""
    with pytest.raises(MediaRefused) as refused:
        decoders.ask(ImageWork(hostile.png_bomb(7000), ImageLimits(1_000_000), CUT))
    assert refused.value.code == "image_too_large"


def test_decoders_have_none_of_our_settings_and_end_with_the_worker(tmp_path: Path) -> None:
    program = (
        "import sys, time; from worker.media.decoders import Decoders; from worker.media.work import *\n"
        "decoders = Decoders(); decoders.ask(ImageWork(sys.stdin.buffer.read(), ImageLimits(100)))\n"
        "print(decoders.pid, flush=True); time.sleep(600)"
    )
    secret = {"VLMQ_REDIS_URL": "redis://:hunter2@host"}
    worker = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=os.environ | secret
    )
    assert worker.stdin is not None and worker.stdout is not None
    with worker, worker.stdin, worker.stdout:
        worker.stdin.write(png(8, 8))
        worker.stdin.close()
        process = psutil.Process(int(worker.stdout.readline()))
        family = [process, *process.children()]
        assert len(family) == 2
        assert all("hunter2" not in str(member.environ()) for member in family)
        worker.kill()
    eventually("they have ended", lambda: all(has_ended(member) for member in family))


def test_many_works_go_through_a_bounded_number_of_decoders(decoders: Decoders) -> None:
    work = ImageWork(png(8, 8), ImageLimits(100))
    seen = set()
    for _ in range(200):
        assert decoders.ask(work) == Size(8, 8)
        seen |= {child.pid for child in psutil.Process(decoders.pid).children()}
    assert 3 <= len(seen) <= 8
