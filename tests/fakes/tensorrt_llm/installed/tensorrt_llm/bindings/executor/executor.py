"""The executor as its callers see it."""

import ctypes
import itertools
import os
import threading
from datetime import timedelta
from pathlib import Path
from typing import ClassVar
from weakref import WeakSet

from tensorrt_llm.bindings.executor.binding import Uint64, bound
from tensorrt_llm.bindings.executor.config import ExecutorConfig
from tensorrt_llm.bindings.executor.engine_folder import EngineFolder
from tensorrt_llm.bindings.executor.enums import CommunicationMode, ModelType
from tensorrt_llm.bindings.executor.group import Follower, Leader, rank, world_size
from tensorrt_llm.bindings.executor.loop import Aborted, Loop
from tensorrt_llm.bindings.executor.mailbox import Mailbox
from tensorrt_llm.bindings.executor.request import Request
from tensorrt_llm.bindings.executor.response import Response
from tensorrt_llm.bindings.executor.statistics import IterationStats

# How long a call may linger so that an answer overtakes what it returns.
_OVERTAKING_S = 0.05


def _new(self: "Executor", model_path: Path, model_type: ModelType, executor_config: ExecutorConfig) -> None:
    if model_type is not ModelType.DECODER_ONLY:
        raise RuntimeError(f"{model_type} is not to be had from this stand-in")
    folder = EngineFolder(Path(model_path))
    _check_world(folder, executor_config)
    self.config, self.requests = executor_config, []
    self.living.add(self)
    # As the compiled loader does: nothing else of this process runs meanwhile.
    ctypes.PyDLL(None).usleep(int(1e6 * float(os.environ.get("FAKE_TENSORRT_LLM_LOAD_S", "0"))))
    self._mailbox = Mailbox()
    self._follows = rank() > 0
    if self._follows:
        self._thread = threading.Thread(target=Follower(folder.head_rows(rank())).run, name="executor", daemon=True)
    else:
        self._leader = Leader(folder.world_size)
        self._loop = Loop(folder, self._leader, executor_config, self._mailbox)
        self._ids = itertools.count(1)
        self._thread = threading.Thread(target=self._run, name="executor", daemon=True)
    self._thread.start()


def _await_all(self: "Executor", timeout: timedelta | None = None) -> list[Response]:
    return self._mailbox.take_all(_seconds(timeout))


def _await_one(self: "Executor", id: Uint64, timeout: timedelta | None = None) -> list[Response]:
    return self._mailbox.take(id, _seconds(timeout))


def _await_several(self: "Executor", ids: list[Uint64], timeout: timedelta | None = None) -> list[list[Response]]:
    return [self._mailbox.take(each, _seconds(timeout)) for each in ids]


for function, name in ((_new, "__init__"), (_await_all, "await_responses")):
    function.__name__ = name


class Executor:
    """`living`, `config` and `requests`, what was enqueued, are for tests; the real one has no such things."""

    living: ClassVar[WeakSet["Executor"]] = WeakSet()
    __init__ = bound(_new)
    await_responses = bound(_await_all, _await_one, _await_several)

    @bound
    def enqueue_request(self, request: Request) -> int:
        request_id = self._enqueue(request)
        if request_id % 4 == 1:
            self._mailbox.wait_for_one(request_id, _OVERTAKING_S)
        return request_id

    @bound
    def enqueue_requests(self, requests: list[Request]) -> list[int]:
        return [self._enqueue(request) for request in requests]

    @bound
    def get_num_responses_ready(self, id: Uint64 | None = None) -> int:
        return self._mailbox.ready(id)

    @bound
    def cancel_request(self, id: Uint64 | None = None) -> None:
        self._mailbox.check_open()
        if id is not None:
            self._loop.cancel(id)

    @bound
    def get_latest_iteration_stats(self) -> list[IterationStats]:
        self._mailbox.check_open()
        return self._loop.pop_stats()

    @bound
    def get_latest_request_stats(self) -> list[None]:
        return []

    @bound
    def can_enqueue_requests(self) -> bool:
        return not self._follows

    @bound
    def get_kv_cache_event_manager(self) -> None:
        return None

    @bound
    def shutdown(self) -> None:
        """On another rank than the first: waits until that one ends."""
        self.living.discard(self)
        if not self._follows:
            self._loop.stop()
        self._thread.join()
        if not self._follows:
            self._leader.end()
        self._mailbox.close("Shutdown called")

    def __enter__(self) -> "Executor":
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()

    def _enqueue(self, request: Request) -> int:
        self._mailbox.check_open()
        if self._follows:
            raise RuntimeError("only the first rank can enqueue requests")
        request_id = next(self._ids)
        self._loop.enqueue(request_id, request)
        self.requests.append(request)
        return request_id

    def _run(self) -> None:
        why = "the process was aborted"
        try:
            self._loop.run()
            why = "Shutdown called"
        except Aborted as exc:
            why = str(exc)
        finally:
            self._mailbox.close(why)


def _seconds(timeout: timedelta | None) -> float | None:
    return None if timeout is None else timeout.total_seconds()


def _check_world(folder: EngineFolder, config: ExecutorConfig) -> None:
    world = world_size()
    parallel = config.parallel_config
    orchestrated = parallel is not None and parallel.communication_mode is CommunicationMode.ORCHESTRATOR
    expected = 1 if orchestrated else folder.world_size
    if world != expected:
        raise RuntimeError(f"MPI world size ({world}) must equal {expected} = tp * pp * cp of the engine")
