"""`python -m bench.engine`: the engine's speed beside transformers on one model of 10 M parameters, in one run.

Prints tokens per second and ratios; asserts nothing. Text prompts of 16 to 127 tokens, 128 new tokens each, greedy,
fp32, one thread. The repetitions of all contenders are interleaved, so that a busy machine slows them alike.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from bench.engine_peers import Peers
from tools.tiny_model import BENCH, Layout, write_checkpoint
from worker.engine.generation import Generation, Sampling
from worker.engine.torch.engine import TorchEngine
from worker.engine.torch.internvl import InternVL
from worker.engine.torch.options import EngineOptions

CONCURRENT = (1, 4, 16, 32)
_PAGE_SIZE = 16


@dataclass
class Contender:
    """`run` answers all prompts once and returns how many tokens it made."""

    name: str
    run: Callable[[], int]
    speeds: list[float] = field(default_factory=list)

    def measure(self) -> None:
        start = time.perf_counter()
        tokens = self.run()
        self.speeds.append(tokens / (time.perf_counter() - start))

    @property
    def median(self) -> float:
        return statistics.median(self.speeds)


def make_prompts(count: int) -> list[list[int]]:
    """Random ids, lengths spread over 16 to 127; no two begin alike, so nothing can be reused."""
    rng = np.random.default_rng(0)
    return [rng.integers(5, BENCH.vocab_size - 100, length).tolist() for length in rng.integers(16, 128, count)]


class EngineRun:
    """Our engine with as many slots as requests. Every run gets another salt, so it reuses no earlier run's pages."""

    def __init__(self, model: InternVL, prompts: list[list[int]], new_tokens: int) -> None:
        pages = sum(-(-(len(p) + new_tokens) // _PAGE_SIZE) for p in prompts)
        options = EngineOptions(slots=len(prompts), pages=pages, page_size=_PAGE_SIZE, prefill_chunk=512)
        self._engine = TorchEngine(model, options)
        self._model, self._pages = model, pages
        self._prompts, self._new_tokens, self._runs = prompts, new_tokens, 0

    def __call__(self) -> int:
        self._runs += 1
        # The model holds one cache; this run's engine takes it back from the others.
        self._model.allocate_cache(self._pages + 1, _PAGE_SIZE)
        for n, prompt in enumerate(self._prompts):
            self._engine.submit(Generation(str(n), prompt, Sampling(), self._new_tokens, salt=self._runs))
        made = 0
        while self._engine.has_work():
            made += sum(len(output.tokens) for output in self._engine.step())
        return made


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.engine", description="The engine beside transformers.")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--new-tokens", type=int, default=128)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        original = write_checkpoint(Path(folder) / "original", BENCH)
        native = write_checkpoint(Path(folder) / "native", BENCH, Layout.NATIVE)
        contenders = _contenders(original, native, options.new_tokens)
        _measure(contenders, options.repetitions)
    _print_table(contenders)


def _contenders(original: Path, native: Path, new_tokens: int) -> list[Contender]:
    prompts = make_prompts(max(CONCURRENT))
    model = InternVL.load(original, torch.device("cpu"), torch.float32)
    peers = Peers(native, new_tokens)
    contenders = [Contender("generate, one at a time", lambda: peers.generate(prompts[:4]))]
    for count in CONCURRENT[2:]:
        contenders.append(Contender(f"continuous batching, {count}", peers.continuous(prompts[:count])))
    for count in CONCURRENT:
        contenders.append(Contender(f"vlmq engine, {count}", EngineRun(model, prompts[:count], new_tokens)))
    return contenders


def _measure(contenders: list[Contender], repetitions: int) -> None:
    for contender in contenders:
        print(f"warming up: {contender.name}", flush=True)
        contender.run()
    for repetition in range(repetitions):
        for contender in contenders:
            contender.measure()
            print(f"{repetition + 1}/{repetitions} {contender.name}: {contender.speeds[-1]:.0f} tokens/s", flush=True)


def _print_table(contenders: list[Contender]) -> None:
    one = contenders[0].median
    batching = {c.name.rsplit(" ", 1)[1]: c.median for c in contenders if c.name.startswith("continuous")}
    print(f"\n{'concurrent requests':<30}{'tokens/s':>10}{'best':>10}{'x generate':>12}{'x cont. batching':>18}")
    for c in contenders:
        peer = batching.get(c.name.rsplit(" ", 1)[1])
        ratio = f"{c.median / peer:.2f}" if peer else ""
        print(f"{c.name:<30}{c.median:>10.0f}{max(c.speeds):>10.0f}{c.median / one:>12.2f}{ratio:>18}")


if __name__ == "__main__":
    main()
