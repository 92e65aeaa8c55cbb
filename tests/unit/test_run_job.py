"""What becomes of a job, whatever happens to it: the use case over fakes of everything around it."""

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from jobs.errors import StoreUnavailable
from jobs.events import Delta, Ended, log_of
from jobs.job import AttemptEnd, FinishReason, Job, JobState, Priority, Token
from jobs.network import HostRule
from jobs.request import ChatRequest, ImagePart, Message, Role, Sampling, TextPart
from tests.fakes.blobs import FakeBlobs
from tests.fakes.decoders import FakeDecoders
from tests.fakes.engine import FakeEngine
from tests.fakes.event_log import FakeEventLog
from tests.fakes.queue import FakeQueue
from tests.fakes.store import FakeJobStore
from tests.fixtures.eventually import eventually
from tests.fixtures.jobs import new_job
from tests.fixtures.pictures import png
from worker.detokenizer import Detokenizers
from worker.engine.config import TilingConfig
from worker.engine.generation import Finish
from worker.live_job import EndKind, LiveJobs
from worker.media.fetch import Fetcher, FetchLimits
from worker.media.files import FileRoots
from worker.media.image import ImageLimits
from worker.media.sources import Sources
from worker.media.video_limits import VideoLimits
from worker.places import Places
from worker.prepare import Geometry, Preparer, RequestLimits
from worker.prompt import PromptBuilder
from worker.publisher import Publisher
from worker.run_job import Identity, JobRunner
from worker.tokenizer import ChatTokenizer

pytestmark = pytest.mark.unit

VOCAB = 2048
PLACES = 4


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> ChatTokenizer:
    return ChatTokenizer.load(tiny_model)


class MovableStore(FakeJobStore):
    """`down`: how many of the next writes of an end fail. `refused`: none is ever taken. The answers to claims arrive
    while `answers` is set."""

    down = 0
    refused = False

    def __init__(self) -> None:
        super().__init__()
        self.answers = threading.Event()
        self.answers.set()

    def claim(self, *args, **kwargs):
        job = super().claim(*args, **kwargs)
        self.answers.wait(30)
        return job

    def finish(self, *args, **kwargs):
        if self.refused:
            raise ValueError("no \0 in text")
        if self.down:
            self.down -= 1
            raise StoreUnavailable("restarting")
        return super().finish(*args, **kwargs)


class SlowBlobs(FakeBlobs):
    """Answers while `answers` is set; `most` is how many it was asked for at once."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.answers = threading.Event(), threading.Event()
        self.answers.set()
        self.counting = threading.Lock()
        self.now = self.most = 0
        self.gets = []

    def get(self, digest):
        self.asked.set()
        self.gets.append(digest)
        with self.counting:
            self.now += 1
            self.most = max(self.most, self.now)
        self.answers.wait(10)
        with self.counting:
            self.now -= 1
        return super().get(digest)


@dataclass
class Bench:
    """A worker of fakes."""

    store: MovableStore
    log: FakeEventLog
    queue: FakeQueue
    engine: FakeEngine
    blobs: SlowBlobs
    live_jobs: LiveJobs
    publisher: Publisher
    runner: JobRunner
    tokenizer: ChatTokenizer

    def submit(self, *parts, **values) -> str:
        request_keys = ("max_tokens", "stop", "logprobs", "min_tokens", "ignore_eos", "n")
        wanted = {key: values.pop(key) for key in request_keys if key in values}
        message = Message(Role.USER, parts or (TextPart("Hello"),))
        request = ChatRequest((message,), Sampling(seed=7, temperature=0.0), **({"max_tokens": 8} | wanted))
        return self.store.insert(new_job(model="tiny", request=request, **values)).id

    def run(self, job_id: str) -> Job:
        self.runner.answer(job_id)
        return self.store.get(job_id)

    def start(self, job_id: str) -> threading.Thread:
        """Runs on a thread until the engine has the job."""
        thread = threading.Thread(target=self.runner.answer, args=(job_id,))
        had = len(self.engine.submitted)
        thread.start()
        eventually("the engine has the job", lambda: len(self.engine.submitted) > had)
        return thread

    def ids(self, text: str) -> list[int]:
        return self.tokenizer.encode(text)

    def ended_log(self, job_id: str) -> list:
        eventually(
            "the log has its end", lambda: self.log.read(job_id) and isinstance(self.log.read(job_id)[-1], Ended)
        )
        return self.log.read(job_id)


@pytest.fixture
def bench(tokenizer: ChatTokenizer, tmp_path: Path) -> Iterator[Bench]:
    store, log, queue, engine, blobs = MovableStore(), FakeEventLog(), FakeQueue(), FakeEngine(), SlowBlobs()
    live_jobs = LiveJobs()
    publisher = Publisher(log, 0.005)
    limits = FetchLimits(max_bytes=1000, max_redirects=1, connect_s=1, read_s=1, total_s=1)
    fetcher = Fetcher(HostRule.of(["80"], ["127.0.0.1:1"]), limits)
    sources = Sources(blobs, FileRoots([], 1000), fetcher, 1_000_000)
    preparer = Preparer(
        sources,
        sources,
        FakeDecoders(),
        PromptBuilder(tokenizer, VOCAB, 16, 4096),
        Geometry(TilingConfig(1, 12, True), 112),
        RequestLimits(
            max_images=2,
            max_videos=1,
            max_tiles=14,
            segments=8,
            max_segments=12,
            image=ImageLimits(1_000_000),
            video=VideoLimits(max_pixels=1_000_000, max_duration_s=60, max_frames=1000, decode_s=30),
        ),
        threads=2,
    )
    identity = Identity("me", "tiny", Detokenizers(tokenizer), (tokenizer.id_of("<|im_end|>"),))
    runner = JobRunner(
        identity, store, queue, engine, preparer, publisher, live_jobs, Places(PLACES), media_backoff_s=0.01
    )
    publisher.start()
    yield Bench(store, log, queue, engine, blobs, live_jobs, publisher, runner, tokenizer)
    runner.abandon()
    publisher.close(5)
    preparer.close()


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


def test_answer_that_stops_is_completed_with_usage_and_a_whole_log(bench):
    end = bench.tokenizer.id_of("<|im_end|>")
    bench.engine.script, bench.engine.finish = [*bench.ids("Hi!"), end], Finish.STOP
    job = bench.run(bench.submit())
    assert (job.state, job.finish_reason, job.text) == (JobState.COMPLETED, FinishReason.STOP, "Hi!")
    assert job.usage.completion_tokens == len(job.tokens) == len(bench.ids("Hi!")) + 1
    assert job.usage.prompt_tokens == len(bench.engine.submitted[0].prompt_ids)
    assert job.usage.cached_tokens == 3
    assert bench.ended_log(job.id) == log_of(job)


def test_answer_of_max_tokens_is_incomplete(bench):
    bench.engine.script = bench.ids("a b c d e f g h i j k")[:8]
    job = bench.run(bench.submit(max_tokens=8))
    assert (job.state, job.finish_reason, len(job.tokens)) == (JobState.INCOMPLETE, FinishReason.LENGTH, 8)


def test_stop_string_ends_the_answer_and_frees_the_slot(bench):
    bench.engine.script, bench.engine.finish = bench.ids("one two three four"), None
    job = bench.run(bench.submit(stop=("thr",), max_tokens=100))
    assert (job.state, job.text) == (JobState.COMPLETED, "one two ")
    assert bench.engine.cancelled == [f"{job.id}:1:0"]


def test_min_tokens_reaches_the_engine_and_keeps_stop_strings_quiet(bench):
    bench.engine.script = ids = bench.ids("one two three four")
    job = bench.run(bench.submit(stop=("two", "four"), min_tokens=len(bench.ids("one two")), max_tokens=len(ids)))
    assert (job.state, job.text) == (JobState.COMPLETED, "one two three ")
    assert bench.engine.submitted[0].min_tokens == len(bench.ids("one two"))


def test_answer_that_ignores_the_end_token_goes_on_past_it_in_every_attempt(bench):
    end = bench.tokenizer.id_of("<|im_end|>")
    ids = [*bench.ids("Hi"), end, *bench.ids("Ho")]
    job_id = bench.submit(ignore_eos=True, max_tokens=len(ids))
    bench.store.claim("tiny", "dead")
    bench.store.give_back(job_id, 1, AttemptEnd.DRAINED, "", [Token(i, "x") for i in ids[:-1]])
    bench.engine.script = ids
    job = bench.run(job_id)
    assert (job.state, [t.id for t in job.tokens]) == (JobState.INCOMPLETE, ids)
    assert bench.engine.submitted[0].stop_ids == []


def test_choices_run_beside_each_other_and_take_turns_in_the_log(bench):
    ids = [bench.ids("one two three"), bench.ids("four five six"), bench.ids("seven eight nine")]
    end = bench.tokenizer.id_of("<|im_end|>")
    job_id = bench.submit(n=3)
    thread = bench.start(job_id)
    eventually("the engine has the generations", lambda: len(bench.engine.submitted) == 3)
    for choice in (2, 0, 1):
        bench.engine.say(f"{job_id}:1:{choice}", ids[choice][: choice + 1])
    bench.engine.say(f"{job_id}:1:0", [end], Finish.STOP)
    bench.engine.say(f"{job_id}:1:2", [end], Finish.STOP)
    bench.engine.say(f"{job_id}:1:1", ids[1][2:3], Finish.LENGTH)
    thread.join(10)
    job = bench.store.get(job_id)
    assert (job.state, job.finish_reason) == (JobState.INCOMPLETE, FinishReason.LENGTH)
    assert job.finish_reasons == (FinishReason.STOP, FinishReason.LENGTH, FinishReason.STOP)
    assert [t.choice for t in job.tokens] == [0, 1, 2, 0, 1, 2, 1, 2, 2]
    assert [t.id for t in job.tokens_of(2)] == [*ids[2][:3], end]
    assert job.text == bench.tokenizer.whole.decode(ids[0][:1])
    assert job.usage.completion_tokens == 9
    assert bench.ended_log(job_id) == log_of(job)
    assert len({g.sampling.seed for g in bench.engine.submitted}) == 3
    assert bench.engine.submitted[0].sampling.seed == 7


def test_choice_that_a_stop_string_ends_frees_its_slot_while_the_others_go_on(bench):
    job_id = bench.submit(n=2, stop=("thr",), max_tokens=100)
    thread = bench.start(job_id)
    eventually("the engine has the generations", lambda: len(bench.engine.submitted) == 2)
    bench.engine.say(f"{job_id}:1:1", bench.ids("one two three four"))
    assert bench.engine.cancelled == [f"{job_id}:1:1"]
    bench.engine.say(f"{job_id}:1:0", bench.ids("a three"))
    thread.join(10)
    job = bench.store.get(job_id)
    assert (job.state, job.text_of(0), job.text_of(1)) == (JobState.COMPLETED, "a ", "one two ")


def test_choices_of_a_dead_engine_continue_each_from_what_was_published(bench):
    ids = [bench.ids("one two three four five six seven")[:8], bench.ids("nine ten eleven twelve thirteen")[:8]]
    job_id = bench.submit(n=2)
    thread = bench.start(job_id)
    eventually("the engine has the generations", lambda: len(bench.engine.submitted) == 2)
    bench.engine.say(f"{job_id}:1:0", ids[0], Finish.LENGTH)
    bench.engine.say(f"{job_id}:1:1", ids[1][:2])
    bench.engine.sinks[f"{job_id}:1:1"].on_engine_died("killed by SIGKILL")
    thread.join(10)
    job = bench.store.get(job_id)
    assert [t.choice for t in job.tokens] == [0, 1, 0, 1, 0]
    thread = bench.start(job_id)
    eventually("the engine has the generations", lambda: len(bench.engine.submitted) == 4)
    assert [g.generated for g in bench.engine.submitted[2:]] == [ids[0][:3], ids[1][:2]]
    bench.engine.say(f"{job_id}:2:1", ids[1][2:], Finish.LENGTH)
    bench.engine.say(f"{job_id}:2:0", ids[0][3:], Finish.LENGTH)
    thread.join(10)
    again = bench.store.get(job_id)
    assert again.tokens[:5] == job.tokens
    assert [[t.id for t in again.tokens_of(choice)] for choice in (0, 1)] == ids
    assert bench.ended_log(job_id) == log_of(again)


def test_continuation_submits_only_the_choices_that_go_on(bench):
    end = bench.tokenizer.id_of("<|im_end|>")
    job_id = bench.submit(n=2)
    bench.store.claim("tiny", "dead")
    held = [Token(end, ""), Token(bench.ids("a")[0], "a", choice=1)]
    bench.store.give_back(job_id, 1, AttemptEnd.LEASE_EXPIRED, "", held)
    bench.engine.script, bench.engine.finish = [bench.ids("a")[0], end], Finish.STOP
    job = bench.run(job_id)
    assert [g.id for g in bench.engine.submitted] == [f"{job_id}:2:1"]
    assert (job.state, job.text_of(0), job.text_of(1)) == (JobState.COMPLETED, "", "a")


def test_deadline_frees_the_slots_of_all_choices(bench):
    job_id = bench.submit(n=3, deadline=datetime.now(UTC) + timedelta(seconds=0.3))
    bench.runner.answer(job_id)
    assert bench.store.get(job_id).error.code == "deadline_exceeded"
    assert sorted(bench.engine.cancelled) == [f"{job_id}:1:{choice}" for choice in range(3)]


def test_bell_without_a_waiting_job_does_nothing(bench):
    bench.runner.answer("job_gone")
    assert bench.engine.submitted == []


def test_bell_runs_the_next_job_whichever_it_named(bench):
    first, second = bench.submit(), bench.submit()
    bench.engine.script = bench.ids("abcdefgh")[:8]
    bench.runner.answer(second)
    assert bench.store.get(first).state.terminal
    assert bench.store.get(second).state is JobState.QUEUED


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


def test_engine_that_refuses_fails_the_job_with_its_code(bench):
    job_id = bench.submit()
    thread = bench.start(job_id)
    bench.engine.sinks[f"{job_id}:1:0"].on_refused("context_length_exceeded", "too long by 5")
    thread.join(10)
    job = bench.store.get(job_id)
    assert (job.state, job.error.code, job.error.message) == (
        *(JobState.FAILED, "context_length_exceeded"),
        "too long by 5",
    )


def test_engine_that_dies_gives_the_job_back_with_its_tokens_and_the_next_attempt_continues(bench):
    ids = bench.ids("one two three four five six")[:8]
    job_id = bench.submit()
    thread = bench.start(job_id)
    bench.engine.say(f"{job_id}:1:0", ids[:3])
    bench.engine.sinks[f"{job_id}:1:0"].on_engine_died("killed by SIGKILL")
    thread.join(10)
    job = bench.store.get(job_id)
    assert (job.state, job.losses, [t.id for t in job.tokens]) == (JobState.QUEUED, 1, ids[:3])
    bench.engine.script = ids
    job = bench.run(job_id)
    assert bench.engine.submitted[1].generated == ids[:3]
    assert (job.state, [t.id for t in job.tokens]) == (JobState.INCOMPLETE, ids)
    assert bench.ended_log(job_id) == log_of(job)


def test_tokens_published_but_not_stored_are_continued_from(bench):
    ids = bench.ids("one two three four five six")[:8]
    job_id = bench.submit()
    job = bench.store.claim("tiny", "dead")
    published = [*log_of(job), *(Delta(Token(i, bench.tokenizer.whole.decode([i]))) for i in ids[:5])]
    bench.log.open(job_id, 1, published)
    bench.store.give_back(job_id, 1, AttemptEnd.LEASE_EXPIRED, "", ())
    bench.engine.script = ids
    job = bench.run(job_id)
    assert bench.engine.submitted[0].generated == ids[:5]
    assert [t.id for t in job.tokens] == ids
    assert bench.ended_log(job_id)[: len(published)] == published


def test_continuation_that_has_all_its_tokens_ends_without_the_engine(bench):
    ids = bench.ids("one two three four five six")[:8]
    job_id = bench.submit()
    bench.store.claim("tiny", "dead")
    bench.store.give_back(job_id, 1, AttemptEnd.LEASE_EXPIRED, "", [Token(i, "x") for i in ids])
    job = bench.run(job_id)
    assert (job.state, job.finish_reason, len(job.tokens)) == (JobState.INCOMPLETE, FinishReason.LENGTH, 8)
    assert bench.engine.submitted == []


def test_cancelled_job_is_stopped_and_not_written(bench):
    job_id = bench.submit()
    thread = bench.start(job_id)
    bench.engine.say(f"{job_id}:1:0", bench.ids("one"))
    bench.store.cancel(job_id)
    bench.live_jobs.stop(job_id, EndKind.NOT_OURS)
    thread.join(10)
    assert bench.store.get(job_id).state is JobState.CANCELLED
    assert bench.engine.cancelled == [f"{job_id}:1:0"]
    assert bench.live_jobs.all() == []


def test_answer_of_a_superseded_attempt_is_dropped(bench):
    job_id = bench.submit()
    thread = bench.start(job_id)
    bench.store.give_back(job_id, 1, AttemptEnd.LEASE_EXPIRED, "", ())
    bench.engine.say(f"{job_id}:1:0", bench.ids("abcdefghij")[:8], Finish.LENGTH)
    thread.join(10)
    assert bench.store.get(job_id).state is JobState.QUEUED


def test_deadline_that_passes_while_running_fails_the_job_and_frees_the_slot(bench):
    job_id = bench.submit(deadline=datetime.now(UTC) + timedelta(seconds=0.3))
    bench.runner.answer(job_id)
    job = bench.store.get(job_id)
    assert (job.state, job.error.code) == (JobState.FAILED, "deadline_exceeded")
    assert bench.engine.cancelled == [f"{job_id}:1:0"]


def test_drain_gives_running_jobs_back_without_a_loss_and_passes_bells_on(bench):
    job_id = bench.submit()
    thread = bench.start(job_id)
    bench.engine.say(f"{job_id}:1:0", bench.ids("one"))
    bench.runner.stop_claiming()
    bench.runner.answer("job_next")
    bench.runner.give_all_back()
    thread.join(10)
    job = bench.store.get(job_id)
    assert (job.state, job.losses, len(job.tokens)) == (JobState.QUEUED, 0, len(bench.ids("one")))
    assert bench.store.attempts(job_id)[0].end is AttemptEnd.DRAINED
    assert bench.queue.rung == [("tiny", "job_next"), ("tiny", job_id)]


def test_job_whose_claim_was_under_way_when_the_drain_began_goes_back_with_the_grace(bench):
    bench.store.answers.clear()
    job_id = bench.submit()
    thread = threading.Thread(target=bench.runner.answer, args=(job_id,))
    thread.start()
    eventually("the claim is under way", lambda: bench.store.get(job_id).state is JobState.IN_PROGRESS)
    bench.runner.stop_claiming()
    drain = threading.Thread(target=bench.runner.end_after, args=(0.1, 0.1))
    drain.start()
    bench.store.answers.set()
    for each in (thread, drain):
        each.join(30)
    assert bench.store.attempts(job_id)[0].end is AttemptEnd.DRAINED


def test_end_that_the_database_never_takes_is_a_loss_until_the_job_is_quarantined(bench):
    bench.store.refused = True
    bench.engine.script = bench.ids("abcdefghij")[:8]
    job_id = bench.submit(max_attempts=2)
    assert bench.run(job_id).losses == 1
    job = bench.run(job_id)
    assert (job.state, job.error.code) == (JobState.FAILED, "too_many_attempts")
    assert bench.store.attempts(job_id)[0].detail.endswith(r"ValueError: 'no \x00 in text'")
    assert isinstance(bench.ended_log(job_id)[-1], Ended)


def test_fault_in_what_the_engine_said_breaks_the_attempt_alone(bench):
    """On the engine's thread, which serves all other jobs."""
    job_id = bench.submit()
    thread = bench.start(job_id)
    bench.engine.say(f"{job_id}:1:0", ["no id"])
    thread.join(10)
    assert bench.store.attempts(job_id)[0].end is AttemptEnd.WORKER_ERROR
    assert bench.store.get(job_id).losses == 1


def test_unexpected_fault_gives_the_job_back_as_a_loss_until_it_is_quarantined(bench):
    bench.engine.fault = RuntimeError("boom")
    job_id = bench.submit(max_attempts=2)
    assert bench.run(job_id).losses == 1
    job = bench.run(job_id)
    assert (job.state, job.error.code) == (JobState.FAILED, "too_many_attempts")
    assert bench.store.attempts(job_id)[0].detail == "RuntimeError: boom"
    assert isinstance(bench.ended_log(job_id)[-1], Ended)


def test_nothing_is_claimed_while_no_engine_serves(bench):
    bench.engine.script = bench.ids("abcdefghij")[:8]
    bench.engine.serving.clear()
    job_id = bench.submit()
    thread = threading.Thread(target=bench.runner.answer, args=(job_id,))
    thread.start()
    time.sleep(0.05)
    assert bench.store.get(job_id).state is JobState.QUEUED
    bench.engine.serving.set()
    thread.join(10)
    assert bench.store.get(job_id).state is JobState.INCOMPLETE


def test_bell_that_waits_for_an_engine_is_passed_on_by_a_drain(bench):
    bench.engine.serving.clear()
    thread = threading.Thread(target=bench.runner.answer, args=("job_x",))
    thread.start()
    bench.runner.stop_claiming()
    thread.join(10)
    assert bench.queue.rung == [("tiny", "job_x")]


def test_without_a_place_only_a_job_somebody_waits_for_is_run(bench):
    taken = [bench.start(bench.submit(priority=Priority.BATCH)) for _ in range(PLACES)]
    bench.submit(priority=Priority.BATCH)
    bench.submit(priority=Priority.BACKGROUND)
    bell = threading.Thread(target=bench.runner.answer, args=("job_x",))
    bell.start()
    time.sleep(0.3)
    assert len(bench.engine.submitted) == PLACES
    urgent = bench.submit(priority=Priority.INTERACTIVE)
    eventually("the urgent job runs", lambda: len(bench.engine.submitted) == PLACES + 1)
    assert bench.store.get(urgent).state is JobState.IN_PROGRESS
    assert [generation.lane for generation in bench.engine.submitted] == [Priority.BATCH] * PLACES + [0]
    bench.runner.give_all_back()
    for thread in [*taken, bell]:
        thread.join(10)


def test_bell_without_a_place_takes_the_next_that_is_free(bench):
    taken = [bench.start(bench.submit(priority=Priority.BATCH)) for _ in range(PLACES)]
    last = bench.submit(priority=Priority.BATCH)
    bell = threading.Thread(target=bench.runner.answer, args=(last,))
    bell.start()
    bench.engine.say(bench.engine.submitted[0].id, bench.ids("abcdefgh")[:8], Finish.LENGTH)
    eventually("the last one runs", lambda: bench.store.get(last).state is JobState.IN_PROGRESS)
    bench.runner.give_all_back()
    for thread in [*taken, bell]:
        thread.join(10)


def test_bell_without_a_place_is_passed_on_by_a_drain(bench):
    taken = [bench.start(bench.submit()) for _ in range(PLACES)]
    bell = threading.Thread(target=bench.runner.answer, args=("job_x",))
    bell.start()
    time.sleep(0.05)
    bench.runner.stop_claiming()
    bell.join(10)
    assert bench.queue.rung == [("tiny", "job_x")]
    bench.runner.give_all_back()
    for thread in taken:
        thread.join(10)


def test_lost_jobs_on_their_last_attempt_run_one_at_a_time(bench):
    jobs = [bench.submit() for _ in range(3)]
    for _ in range(2):
        for claimed in [bench.store.claim("tiny", "dead") for _ in jobs]:
            bench.store.give_back(claimed.id, claimed.attempt, AttemptEnd.ENGINE_DIED, "", ())
    threads = [threading.Thread(target=bench.runner.answer, args=(job_id,)) for job_id in jobs]
    for thread in threads:
        thread.start()
    for count in (1, 2, 3):
        eventually("the engine has the generations", lambda count=count: len(bench.engine.submitted) == count)
        time.sleep(0.05)
        assert len(bench.engine.submitted) == count
        bench.engine.sinks[bench.engine.submitted[-1].id].on_engine_died("again")
    for thread in threads:
        thread.join(10)
    assert {bench.store.get(job_id).error.code for job_id in jobs} == {"too_many_attempts"}


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


def test_end_is_written_when_the_database_is_back(bench):
    bench.store.down = 1
    bench.engine.script = bench.ids("abcdefghij")[:8]
    assert bench.run(bench.submit()).state is JobState.INCOMPLETE


def test_tenants_do_not_share_cached_prefixes(bench):
    bench.engine.script = bench.ids("abcdefghij")[:8]
    for tenant in ("default", "a", "b", "a"):
        bench.run(bench.submit(tenant=tenant))
    salts = [generation.salt for generation in bench.engine.submitted]
    assert salts[0] == 0
    assert salts[1] == salts[3] != salts[2]


def test_sampling_travels_whole(bench):
    asked = Sampling(
        seed=9, temperature=0.5, top_p=0.9, top_k=5, min_p=0.1, repetition_penalty=1.1, presence_penalty=0.2,
        frequency_penalty=0.3, logit_bias={5: -1.0},
    )  # fmt: skip
    request = ChatRequest((Message(Role.USER, (TextPart("x"),)),), asked, max_tokens=3, logprobs=2)
    job_id = bench.store.insert(replace(new_job(model="tiny"), request=request)).id
    bench.engine.script = bench.ids("abc")[:3]
    bench.runner.answer(job_id)
    sent = bench.engine.submitted[0].sampling
    assert {name: getattr(sent, name) for name in asked.__struct_fields__} == {
        name: getattr(asked, name) for name in asked.__struct_fields__
    }
    assert sent.logprobs == 2


def test_timeline_says_when_things_were_not_when_they_were_written(bench):
    job_id = bench.submit()
    thread = bench.start(job_id)
    eventually("the engine has the job", lambda: bench.engine.submitted)
    time.sleep(0.1)
    bench.engine.say(f"{job_id}:1:0", bench.ids("one"))
    time.sleep(0.1)
    bench.engine.say(f"{job_id}:1:0", bench.ids("abcdefghij")[:8], Finish.LENGTH)
    thread.join(10)
    when = bench.store.get(job_id).timeline
    assert (when.first_token_at - when.prepared_at).total_seconds() > 0.05
    assert (when.done_at - when.first_token_at).total_seconds() > 0.05
