"""`python -m bench.path`: the whole path beside the engine alone, in one run. Prints tables; asserts nothing.

HTTP → PostgreSQL → Redis → Celery → engine process → Redis → HTTP stream, on the embedded services, with a model of
10 M parameters (fp32, one thread, 32 slots), against the same engine with the same prompts in this process. Runs of
both are interleaved, so that a busy machine slows them alike.
"""

import argparse
import asyncio
import random
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bench.http_client import Answer, Connection, chat, submit
from bench.running import running_system
from jobs.request import Message, Role, TextPart
from tests.acceptance.system import MODEL, System
from tools.tiny_model import BENCH, write_checkpoint
from worker.engine.config import load_config
from worker.engine.generation import Generation, Sampling
from worker.engine.torch.engine import TorchEngine
from worker.engine.torch.internvl import InternVL
from worker.engine.torch.options import EngineOptions
from worker.prompt import PromptBuilder
from worker.tokenizer import ChatTokenizer

SLOTS = 32
WORDS = [
    "a",
    "red",
    "green",
    "blue",
    "circle",
    "square",
    "stands",
    "left",
    "right",
    "of",
    "the",
    "large",
    "small",
    "picture",
    "what",
    "do",
    "you",
    "see",
    "in",
    "it",
]


def texts(count: int, seed: int) -> list[str]:
    """User messages of 16 to 100 words, no two alike."""
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, k=rng.randint(16, 100))) for _ in range(count)]


class EngineAlone:
    """The engine in this process, fed as the worker would feed it."""

    def __init__(self, checkpoint: Path) -> None:
        torch.set_num_threads(1)
        self._model = InternVL.load(checkpoint, torch.device("cpu"), torch.float32)
        self._engine = TorchEngine(self._model, EngineOptions(slots=SLOTS, pages=2048))
        tokens_per_tile = load_config(checkpoint).vision.tokens_per_tile
        self._prompts = PromptBuilder(
            ChatTokenizer.load(checkpoint), self._model.vocab_size, tokens_per_tile, self._model.context_length
        )
        self._count = 0

    def run(self, messages: Sequence[str], new_tokens: int) -> list[float]:
        """Answers all at once; returns per message the seconds to its first token."""
        start = time.perf_counter()
        first: dict[str, float] = {}
        for text in messages:
            self._count += 1
            prompt = self._prompts.build((Message(Role.USER, (TextPart(text),)),), ())
            self._engine.submit(Generation(str(self._count), prompt.ids, Sampling(), new_tokens))
        while self._engine.has_work():
            for output in self._engine.step():
                first.setdefault(output.id, time.perf_counter() - start)
        return list(first.values())


@dataclass(frozen=True, slots=True)
class WholePath:
    """A running system, seen from a client."""

    running: System

    @property
    def port(self) -> int:
        return int(self.running.url.rsplit(":", 1)[1])

    def run(self, messages: Sequence[str], new_tokens: int) -> list[Answer]:
        """Asks all at once, streaming."""

        async def all_of_them() -> list[Answer]:
            return await asyncio.gather(*(chat(self.port, _chat(text, new_tokens)) for text in messages))

        return asyncio.run(all_of_them())

    def submissions(self, count: int, clients: int) -> float:
        """Seconds to have `count` jobs accepted from some clients that wait for each answer."""

        async def one(mine: Sequence[str]) -> None:
            connection = Connection(self.port)
            for text in mine:
                await submit(connection, _job(text))
            await connection.close()

        async def all_of_them() -> None:
            messages = texts(count, seed=1)
            await asyncio.gather(*(one(messages[i::clients]) for i in range(clients)))

        start = time.perf_counter()
        asyncio.run(all_of_them())
        return time.perf_counter() - start


def _job(text: str) -> dict[str, Any]:
    return {"model": MODEL, "messages": [{"role": "user", "content": text}], "temperature": 0, "max_tokens": 1}


def _chat(text: str, new_tokens: int) -> dict[str, Any]:
    more = {"max_tokens": new_tokens, "stream": True, "stream_options": {"include_usage": True}}
    return _job(text) | more


def saturation(alone: EngineAlone, path: WholePath, requests: int, new_tokens: int, repetitions: int) -> None:
    """Three times as many requests as slots, all at once."""
    speeds: dict[str, list[float]] = {"engine alone": [], "whole path": []}
    for repetition in range(-1, repetitions):
        messages = texts(requests, seed=100 + repetition)
        start = time.perf_counter()
        alone.run(messages, new_tokens)
        middle = time.perf_counter()
        tokens = sum(answer.tokens for answer in path.run(messages, new_tokens))
        end = time.perf_counter()
        assert tokens == requests * new_tokens, f"{tokens} tokens came of {requests * new_tokens}"
        if repetition >= 0:  # the first warms up
            speeds["engine alone"].append(tokens / (middle - start))
            speeds["whole path"].append(tokens / (end - middle))
            print(f"{repetition + 1}/{repetitions}: { ({k: round(v[-1]) for k, v in speeds.items()}) }", flush=True)
    ratios = [whole / bare for whole, bare in zip(speeds["whole path"], speeds["engine alone"], strict=True)]
    print(f"\n{requests} requests at once, {new_tokens} tokens each, {SLOTS} slots")
    print(f"{'':<20}{'tokens/s, median':>18}{'best':>8}")
    for name, values in speeds.items():
        print(f"{name:<20}{statistics.median(values):>18.0f}{max(values):>8.0f}")
    print(f"{'whole / alone':<20}{statistics.median(ratios):>18.2f}{max(ratios):>8.2f}\n", flush=True)


def first_token(alone: EngineAlone, path: WholePath, count: int) -> None:
    """One request at a time on an idle system."""
    bare: list[float] = []
    whole: list[float] = []
    for text in texts(count, seed=7):
        bare += alone.run([text], 2)
        whole += [answer.first_text_s for answer in path.run([text], 8)]
    print(f"first token on an idle queue, ms, {count} requests one after the other")
    print(f"{'':<20}{'p50':>8}{'p90':>8}")
    for name, values in (("engine alone", bare), ("whole path", whole)):
        print(f"{name:<20}{_ms(values, 0.5):>8.1f}{_ms(values, 0.9):>8.1f}")
    print(f"{'added by the path':<20}{_ms(whole, 0.5) - _ms(bare, 0.5):>8.1f}\n", flush=True)


def _ms(values: Sequence[float], share: float) -> float:
    return 1000 * sorted(values)[int(share * (len(values) - 1))]


def submissions(path: WholePath, count: int) -> None:
    """Nobody works them off meanwhile."""
    print("POST /v1/jobs, one API process")
    print(f"{'clients':>8}{'jobs/s':>10}")
    for clients in (1, 4, 16):
        print(f"{clients:>8}{count / path.submissions(count, clients):>10.0f}", flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.path", description="The whole path beside the engine alone.")
    parser.add_argument("--requests", type=int, default=3 * SLOTS)
    parser.add_argument("--new-tokens", type=int, default=128)
    parser.add_argument("--repetitions", type=int, default=3)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="vlmq-bench-") as folder:
        checkpoint = write_checkpoint(Path(folder) / "model", BENCH)
        alone = EngineAlone(checkpoint)
        with running_system(checkpoint, Path(folder)) as it:
            path = WholePath(it)
            worker = it.start_worker()
            saturation(alone, path, options.requests, options.new_tokens, options.repetitions)
            first_token(alone, path, 40)
            worker.terminate()
            submissions(path, 1000)


if __name__ == "__main__":
    main()
