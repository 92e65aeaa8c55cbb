"""`python -m tools.demo_model.train --seconds 1080 --folder var/demo_model`: trains, checkpoints, exports.

The schedule counts training seconds, so an interrupted run goes on from its checkpoint to the same total.
"""

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from tools.demo_model.batch import Batch
from tools.demo_model.conversation import Task
from tools.demo_model.curve import plot
from tools.demo_model.example import CHARACTERS, THING_KINDS
from tools.demo_model.export import export
from tools.demo_model.geometry import DEMO
from tools.demo_model.model import DemoModel
from tools.demo_model.optimizer import Optimizer
from tools.demo_model.pool import Pool
from tools.demo_model.scoring import draw_held_out_batches, score
from tools.demo_model.tokenizer import build_tokenizer


@dataclass(frozen=True, slots=True)
class Plan:
    folder: Path
    out: Path
    seconds: float
    peak_lr: float
    warmup_s: float
    decay_from: float
    side_weight: float
    batch: int
    accumulate: int
    workers: int
    capacity: int
    held_out: int
    score_every_s: float
    seed: int
    start_from: Path | None
    device: torch.device

    def lr(self, elapsed_s: float) -> float:
        """Up, level, and linearly to nothing."""
        progress = min(1.0, elapsed_s / self.seconds)
        falling = min(1.0, (1.0 - progress) / (1.0 - self.decay_from))
        return self.peak_lr * min(1.0, elapsed_s / self.warmup_s) * max(falling, 0.01)


class SideTask(nn.Module):
    """Reads from each visual token which characters and which thing stand there; training only, never exported."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.characters = nn.Linear(hidden, len(CHARACTERS))
        self.things = nn.Linear(hidden, THING_KINDS)
        nn.init.constant_(self.characters.bias, -5.0)

    def forward(self, visual: Tensor, batch: Batch) -> Tensor:
        wanted = visual.new_zeros((len(visual), len(CHARACTERS) + 1), dtype=torch.float32)
        wanted = wanted.scatter(1, batch.cell_characters.long(), 1.0)[:, 1:]
        characters = F.binary_cross_entropy_with_logits(self.characters(visual).float(), wanted, reduction="sum")
        things = F.cross_entropy(self.things(visual).float(), batch.cell_things)
        return characters / (wanted.sum() + 100.0) + things


class Trainee(nn.Module):
    """The model and its side task, so that one optimizer sees both."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.model = DemoModel(DEMO, vocabulary)
        self.side = SideTask(DEMO.hidden)

    def losses(self, batch: Batch) -> tuple[Tensor, Tensor]:
        out = self.model(batch.ids, batch.tiles, batch.visual, batch.asked)
        answers = F.cross_entropy(out.logits.float(), batch.targets)
        side = self.side(out.visual, batch) if len(batch.tiles) else answers.new_zeros(())
        return answers, side


class Training:
    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.tokenizer = build_tokenizer()
        torch.manual_seed(plan.seed)
        # cuDNN's attention builds a plan per shape, and here every batch has another number of tiles.
        torch.backends.cuda.enable_cudnn_sdp(False)
        self.trainee = Trainee(self.tokenizer.get_vocab_size()).to(plan.device)
        self.elapsed_s, self.steps, self.runs = 0.0, 0, 0
        if plan.start_from:
            self.trainee.model.load_state_dict({k: v.float() for k, v in load_file(plan.start_from).items()})
        self.optimizer = Optimizer(self.trainee)
        self._resume()
        if plan.device.type == "cuda":
            self._half()

    def _half(self) -> None:
        """The model itself is bfloat16, as exported; the optimizer's masters stay float32."""
        for parameter in self.trainee.parameters():
            parameter.data = parameter.data.bfloat16()

    @property
    def _checkpoint(self) -> Path:
        return self.plan.folder / "checkpoint.pt"

    @property
    def log(self) -> Path:
        return self.plan.folder / "log.jsonl"

    def _resume(self) -> None:
        self.plan.folder.mkdir(parents=True, exist_ok=True)
        if self._checkpoint.exists():
            state = torch.load(self._checkpoint, map_location=self.plan.device, weights_only=True)
            self.optimizer.load(state["optimizer"])
            self.elapsed_s, self.steps, self.runs = state["elapsed_s"], state["steps"], state["runs"] + 1

    def save(self) -> None:
        state = {"optimizer": self.optimizer.state(), "elapsed_s": self.elapsed_s, "steps": self.steps}
        part = self._checkpoint.with_suffix(".part")
        torch.save(state | {"runs": self.runs}, part)
        part.replace(self._checkpoint)
        export(self.trainee.model.state_dict(), self.tokenizer, DEMO, self.plan.out)

    def note(self, **fields: Any) -> None:
        entry = json.dumps({"minutes": round(self.elapsed_s / 60, 3), "step": self.steps, **fields})
        with self.log.open("a") as log:
            log.write(entry + "\n")
        print(entry, flush=True)

    def run(self) -> None:
        """Until the plan's seconds are used up."""
        plan = self.plan
        # Each run of an interrupted training draws conversations that no run before it drew.
        pool = Pool((plan.seed * 100 + self.runs) * 1_000_000_000, plan.batch, plan.workers, plan.capacity, plan.device)
        held_out = draw_held_out_batches(plan.held_out, max(1, plan.workers), plan.device)
        pool.wait_for(plan.workers * 2)
        resumed_at, before_s = time.monotonic(), self.elapsed_s
        scored_s, noted_step = self.elapsed_s, self.steps
        while self.elapsed_s < plan.seconds:
            losses = self._step(pool)
            self.elapsed_s = before_s + time.monotonic() - resumed_at
            if self.steps - noted_step >= 50:
                noted_step = self.steps
                answers, side, norm = losses.tolist()
                self.note(
                    loss=round(answers, 4), side=round(side, 4), norm=round(norm, 3), drawn=pool.drawn * plan.batch
                )
            if self.elapsed_s - scored_s > plan.score_every_s:
                scored_s = self.elapsed_s
                self._score(held_out)
                self.save()
        self._score(held_out)
        self.save()
        plot(self.log, plan.out / "training.png")
        (plan.out / "log.jsonl").write_text(self.log.read_text())
        pool.stop()

    def _step(self, pool: Pool) -> Tensor:
        plan = self.plan
        side_weight = plan.side_weight * (1.0 - self.elapsed_s / plan.seconds)
        total = torch.zeros(2, device=plan.device)
        for _ in range(plan.accumulate):
            answers, side = self.trainee.losses(pool.take())
            ((answers + side_weight * side) / plan.accumulate).backward()  # type: ignore[no-untyped-call]
            total += torch.stack([answers.detach(), side.detach().float()]) / plan.accumulate
        norm = self.optimizer.step(plan.lr(self.elapsed_s))
        self.steps += 1
        return torch.cat([total, norm[None]])

    def _score(self, held_out: dict[Task, list[Batch]]) -> None:
        scores = {task: round(value, 4) for task, value in score(self.trainee.model, held_out).items()}
        self.note(scores=scores, average=round(sum(scores.values()) / len(scores), 4))


def plan_from_arguments() -> Plan:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("var/demo_model"))
    parser.add_argument("--out", type=Path, default=Path("var/demo_model/export"))
    parser.add_argument("--seconds", type=float, default=1080.0)
    parser.add_argument("--peak-lr", type=float, default=2e-3)
    parser.add_argument("--warmup-s", type=float, default=10.0)
    parser.add_argument("--decay-from", type=float, default=0.55)
    parser.add_argument("--side-weight", type=float, default=0.4)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--accumulate", type=int, default=3)
    parser.add_argument("--workers", type=int, default=14)
    parser.add_argument("--capacity", type=int, default=2000)
    parser.add_argument("--held-out", type=int, default=128)
    parser.add_argument("--score-every-s", type=float, default=45.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--start-from", type=Path, default=None)
    parser.add_argument("--device", type=torch.device, default=torch.device("cuda"))
    return Plan(**vars(parser.parse_args()))


def main() -> None:
    Training(plan_from_arguments()).run()


if __name__ == "__main__":
    main()
