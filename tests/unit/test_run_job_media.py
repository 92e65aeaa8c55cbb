"""Requests with pictures, and those that can never run, over fakes of everything around them."""

import threading

import pytest

from jobs.events import Ended
from jobs.job import AttemptEnd, JobState
from jobs.request import ImagePart, TextPart
from tests.fixtures.eventually import eventually
from tests.fixtures.job_bench import VOCAB
from tests.fixtures.pictures import png
from worker.engine.generation import Finish
from worker.live_job import EndKind

pytestmark = pytest.mark.unit


def test_media_of_one_job_leave_threads_to_those_of_others(bench):
    first, second = (ImagePart(f"blob:{bench.blobs.put(png(8 * k, 8))}") for k in (1, 2))
    bench.engine.script, bench.engine.finish = bench.ids("Hi!"), Finish.LENGTH
    bench.run(bench.submit(first, second))
    assert bench.blobs.most == 1
    bench.blobs.answers.clear()
    ids = [bench.submit(first, second), bench.submit(second)]
    threads = [threading.Thread(target=bench.runner.answer, args=(job_id,)) for job_id in ids]
    for thread in threads:
        thread.start()
    eventually("both jobs' media are worked on", lambda: bench.blobs.now == 2)
    bench.blobs.answers.set()
    for thread in threads:
        thread.join()
    assert [bench.store.get(job_id).state for job_id in ids] == [JobState.INCOMPLETE] * 2


def test_image_that_is_refused_begins_no_more_of_its_job(bench):
    missing, there = ImagePart("blob:" + "0" * 64), ImagePart(f"blob:{bench.blobs.put(png(8, 8))}")
    assert bench.run(bench.submit(missing, there)).error.code == "image_file_not_found"
    assert bench.blobs.gets == ["0" * 64]


def test_image_travels_as_tiles_with_virtual_ids(bench):
    part = ImagePart(f"blob:{bench.blobs.put(png())}")
    bench.engine.script = bench.ids("abcdefgh")
    job = bench.run(bench.submit(part, TextPart("What?")))
    generation = bench.engine.submitted[0]
    assert [image.tiles for image in generation.images] == [3]
    assert [i for i in generation.prompt_ids if i >= VOCAB] == list(range(VOCAB, VOCAB + 48))
    assert job.usage.image_tokens == 48


@pytest.mark.parametrize(
    ("parts", "code"),
    [
        ((ImagePart("blob:" + "0" * 64), TextPart("x")), "image_file_not_found"),
        ((ImagePart("file:///etc/passwd"), TextPart("x")), "invalid_image_url"),
        ((ImagePart("http://127.0.0.1/x"), TextPart("x")), "invalid_image_url"),
        ((ImagePart("data:image/png;base64,x"), TextPart("x")), "invalid_image_url"),
        ((ImagePart("a"), ImagePart("b"), ImagePart("c")), "too_many_images"),
        ((ImagePart("blob:x"), TextPart("<image> <image>")), "invalid_prompt"),
        ((TextPart("word " * 9000),), "context_length_exceeded"),
    ],
)
def test_request_that_can_never_run_fails_with_its_code(bench, parts, code):
    job = bench.run(bench.submit(*parts))
    assert (job.state, job.error.code, job.error.param) == (JobState.FAILED, code, "messages")
    assert bench.engine.submitted == []
    assert isinstance(bench.ended_log(job.id)[-1], Ended)


def test_images_of_too_many_tiles_fail_with_the_numbers(bench):
    part = ImagePart(f"blob:{bench.blobs.put(png(400, 300))}")
    job = bench.run(bench.submit(part, part, TextPart("x")))
    assert job.error.code == "image_too_large"
    assert "26 tiles, more than 14" in job.error.message


def test_media_host_that_is_away_gives_the_job_back_and_at_last_fails_it(bench):
    job_id = bench.submit(ImagePart("http://127.0.0.1:1/x.png"), TextPart("x"), max_attempts=2)
    job = bench.run(job_id)
    assert (job.state, job.losses) == (JobState.QUEUED, 1)
    assert bench.store.attempts(job_id)[0].end is AttemptEnd.MEDIA_UNAVAILABLE
    assert bench.queue.rung == [("tiny", job_id)]
    job = bench.run(job_id)
    assert (job.state, job.error.code) == (JobState.FAILED, "failed_to_download_image")


def test_cancel_while_an_image_is_fetched_stops_at_once(bench):
    bench.blobs.answers.clear()
    job_id = bench.submit(ImagePart("blob:x"), TextPart("x"))
    thread = threading.Thread(target=bench.runner.answer, args=(job_id,))
    thread.start()
    assert bench.blobs.asked.wait(10)
    bench.store.cancel(job_id)
    bench.live_jobs.stop(job_id, EndKind.NOT_OURS)
    thread.join(5)
    assert not thread.is_alive()
    bench.blobs.answers.set()
    assert bench.engine.submitted == []
