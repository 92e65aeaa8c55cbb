"""A quick measure during training: the share of held-out answers whose every token is the likeliest one.

Given the right tokens before it, each is the likeliest exactly when greedy decoding writes the whole answer, so this
equals the exact-match rate of generation, without generating.
"""

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import torch
from torch import Tensor

from tools.demo_model.batch import Batch, collate
from tools.demo_model.conversation import Task
from tools.demo_model.example import Encoder, Example
from tools.demo_model.model import DemoModel
from tools.demo_model.sample import draw_held_out
from tools.demo_model.tokenizer import build_tokenizer

PART = 32


def _draw(task: Task, first: int) -> list[Example]:
    encoder = Encoder(build_tokenizer())
    return [encoder.encode(draw_held_out(task, seed)) for seed in range(first, first + PART)]


def draw_held_out_batches(per_task: int, processes: int, device: torch.device) -> dict[Task, list[Batch]]:
    """`per_task` conversations of every task, in batches of 32."""
    context_id = Encoder(build_tokenizer()).context
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        jobs = {task: [pool.submit(_draw, task, 10_000 + first) for first in range(0, per_task, PART)] for task in Task}
        return {task: [collate(job.result(), context_id).to(device) for job in parts] for task, parts in jobs.items()}


def last_answers_right(logits: Tensor, batch: Batch) -> Tensor:
    """One 0 or 1 per example, for the answer of its last round."""
    right = (logits.argmax(-1) == batch.targets).float()
    answers = int(batch.answers.max()) + 1
    rows = batch.asked // batch.ids.shape[1]
    per_answer = torch.ones(answers, device=right.device).scatter_reduce(0, batch.answers, right, "amin")
    last = torch.zeros(len(batch.ids), dtype=torch.long, device=right.device).scatter_reduce(
        0, rows, batch.answers, "amax", include_self=False
    )
    return per_answer[last]


@torch.no_grad()
def score(model: DemoModel, held_out: dict[Task, list[Batch]]) -> dict[Task, float]:
    scores = {}
    for task, batches in held_out.items():
        right = [last_answers_right(model(b.ids, b.tiles, b.visual, b.asked).logits, b) for b in batches]
        scores[task] = float(torch.cat(right).mean())
    return scores
