"""One worker put together: what it is made of, in which order it starts, and in which order it stops."""

import logging
import os
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from uuid import uuid4

import redis

from jobs import connect
from jobs.control import control_channel
from jobs.database import Database
from jobs.errors import StoreUnavailable
from jobs.ports import Blobs, JobStore, WorkerRecord
from jobs.queue import CeleryQueue
from jobs.settings import ServiceSettings
from jobs.tiling import Tiling
from worker.control_listener import ControlListener
from worker.detokenizer import Detokenizers
from worker.engine.config import load_config
from worker.engine.messages import Ready
from worker.engine_process import EngineProcess, EngineTimes
from worker.heartbeat import Heartbeat
from worker.live_job import EndKind, LiveJobs
from worker.media.decoders import Decoders
from worker.media.image import ImageLimits
from worker.media.sources import Sources
from worker.media.video_limits import VideoLimits
from worker.partials import Partials
from worker.places import Places
from worker.prepare import Geometry, Preparer, RequestLimits
from worker.prompt import DEFAULT_SYSTEM, STOP_TOKENS, PromptBuilder
from worker.publisher import Publisher
from worker.run_job import Identity, JobRunner
from worker.settings import EngineCommand, ModelSettings, WorkerSettings
from worker.tiles import at_detail
from worker.token_counter import COUNTERS, TokenCounter
from worker.tokenizer import ChatTokenizer

log = logging.getLogger(__name__)

_PATIENCE_S = 5.0
_LAST_WORDS_S = 5.0


@dataclass(frozen=True, slots=True)
class Lines:
    """The connections to the outside. The heartbeat's are its own: nothing else may hold it up."""

    database: Database
    heartbeat_database: Database
    redis: redis.Redis
    queue: CeleryQueue

    @classmethod
    def open(cls, services: ServiceSettings, threads: int) -> "Lines":
        return cls(
            # A connection for each job thread, and two for partial answers and what is left.
            connect.database(services, threads + 2),
            connect.heartbeat_database(services),
            connect.redis_client(services),
            connect.queue(services),
        )

    def close(self) -> None:
        self.queue.close()
        self.redis.close()
        self.database.close()
        self.heartbeat_database.close()


@dataclass(frozen=True, slots=True)
class Runtime:
    """A worker that runs. `answer` may be called from any thread."""

    worker_id: str
    lines: Lines
    store: JobStore
    engine: EngineProcess
    live_jobs: LiveJobs
    publisher: Publisher
    partials: Partials
    preparer: Preparer
    runner: JobRunner
    listener: ControlListener
    counter: TokenCounter
    heartbeat: Heartbeat
    grace_s: float

    def answer(self, job_id: str) -> None:
        """A bell rang: runs the next job to its end, if one waits."""
        self.runner.answer(job_id)

    def drain(self) -> None:
        """Claims nothing more; gives back what still runs when the grace is over. Returns at once, and when all is
        over every thread that is in `answer` returns."""
        self.runner.stop_claiming()
        log.info("draining: %d jobs run", len(self.live_jobs.all()), extra={"action": "drain"})
        times = (self.grace_s, _LAST_WORDS_S)
        threading.Thread(target=self.runner.end_after, args=times, name="drain", daemon=True).start()

    def hurry(self) -> None:
        """Gives back now what still runs."""
        self.runner.give_all_back()

    def close(self) -> None:
        """After the last `answer` has returned."""
        self.listener.close()
        self.counter.close()
        self.partials.close()
        self.preparer.close()
        self.publisher.close(_LAST_WORDS_S)
        self.heartbeat.close()
        try:
            self.store.retire(self.worker_id)
        except StoreUnavailable as exc:
            log.warning("not retired: %s", exc, extra={"action": "retire", "worker": self.worker_id})
        self.engine.close()
        self.lines.close()
        log.info("stopped", extra={"action": "stopped", "worker": self.worker_id})


def boot(
    services: ServiceSettings, settings: WorkerSettings, model: ModelSettings, on_given_up: Callable[[str], None]
) -> Runtime:
    """Loads the model, then makes the worker known. Raises EngineUnavailable, TokenizerError, CheckpointError,
    SettingsError, StoreUnavailable. `on_given_up` is called when the engine cannot be kept running."""
    worker_id = f"{socket.gethostname()}:{os.getpid()}:{uuid4().hex[:8]}"
    lines = Lines.open(services, model.job_threads)
    tokenizer = ChatTokenizer.load(model.path)
    engine = _engine(settings, model, on_given_up)
    ready = engine.start()
    preparer = _preparer(settings, model, connect.blobs(services), tokenizer, ready)
    live_jobs = LiveJobs()
    store = connect.job_store(lines.database, _PATIENCE_S)
    publisher = Publisher(connect.event_log(services, lines.redis), settings.flush_ms / 1000)
    partials = Partials(store, live_jobs, settings.partials_s)
    record = WorkerRecord(
        *(worker_id, model.name, socket.gethostname(), os.getpid(), ready.slots, ready.device),
        tiling=_tiling(settings, model),
    )
    identity = Identity(worker_id, model.name, Detokenizers(tokenizer), tuple(tokenizer.ids_of(STOP_TOKENS)))
    runtime = Runtime(
        worker_id=worker_id,
        lines=lines,
        store=store,
        engine=engine,
        live_jobs=live_jobs,
        publisher=publisher,
        partials=partials,
        preparer=preparer,
        runner=JobRunner(
            *(identity, store, lines.queue, engine, preparer, publisher, live_jobs),
            places=Places(model.places),
            media_backoff_s=settings.media_backoff_s,
        ),
        listener=ControlListener(
            lines.redis,
            control_channel(services.redis_prefix, worker_id),
            lambda job_id: live_jobs.stop(job_id, EndKind.NOT_OURS),
        ),
        counter=TokenCounter(connect.counting(services, lines.redis), model.name, preparer),
        heartbeat=Heartbeat(
            connect.job_store(lines.heartbeat_database),
            record,
            live_jobs,
            lambda: engine.stats,
            every_s=services.heartbeat_s,
            tick_s=settings.tick_s,
        ),
        grace_s=settings.grace_s,
    )
    runtime.publisher.start()
    runtime.partials.start()
    runtime.listener.start()
    runtime.counter.start()
    runtime.heartbeat.start()
    return runtime


def _engine(settings: WorkerSettings, model: ModelSettings, on_given_up: Callable[[str], None]) -> EngineProcess:
    times = EngineTimes(settings.engine_start_s, settings.engine_silence_s, settings.engine_restarts)
    return EngineProcess(EngineCommand.of(settings, model), times, on_given_up)


def _tiling(settings: WorkerSettings, model: ModelSettings) -> Tiling:
    checkpoint = load_config(model.path)
    seen, vision = at_detail(checkpoint.tiling, "auto", model.max_tiles), checkpoint.vision
    return Tiling(
        *(seen.min_tiles, seen.max_tiles, seen.use_thumbnail),
        tile_size=vision.image_size,
        tile_tokens=vision.tokens_per_tile,
        frames=settings.video_segments,
    )


def _preparer(
    settings: WorkerSettings, model: ModelSettings, blobs: Blobs, tokenizer: ChatTokenizer, ready: Ready
) -> Preparer:
    checkpoint = load_config(model.path)
    prompts = PromptBuilder(
        tokenizer,
        ready.vocab_size,
        checkpoint.vision.tokens_per_tile,
        ready.context_length,
        DEFAULT_SYSTEM if model.system_prompt is None else model.system_prompt,
    )
    limits = RequestLimits(
        max_images=settings.max_images,
        max_videos=settings.max_videos,
        max_tiles=settings.max_request_tiles,
        segments=settings.video_segments,
        max_segments=settings.max_video_segments,
        image=ImageLimits(settings.max_image_pixels, settings.exif_orientation, settings.image_decode_s),
        video=VideoLimits(
            max_pixels=settings.max_video_pixels,
            max_duration_s=settings.max_video_s,
            max_frames=settings.max_video_frames,
            decode_s=settings.video_decode_s,
        ),
    )
    decoders = Decoders()
    decoders.start()
    return Preparer(
        Sources.of(settings, blobs, settings.max_image_bytes),
        Sources.of(settings, blobs, settings.max_video_bytes),
        decoders,
        prompts,
        Geometry(checkpoint.tiling, checkpoint.vision.image_size, model.max_tiles),
        limits,
        jobs=model.job_threads + COUNTERS,
    )
