"""`python -m tools.demo_model.evaluate`: exact answers per task on held-out pictures, through the product's engine: the
torch engine, or with `--engines` TensorRT-LLM.

Deterministic: fixed seeds, greedy decoding, one thread. Held-out words and numbers were never printed in training.
"""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

from tools.demo_model.conversation import Conversation, Task, is_right
from tools.demo_model.product import Product, tensorrt_engine, torch_engine
from tools.demo_model.sample import draw_held_out
from worker.engine.torch.quantization import Quantization

CHECKPOINT = Path("models/vlmq-demo")
TEXT_ONLY = (Task.NO_PICTURE, Task.SMALL_TALK)
PICTURES = 2000
FEWEST_RIGHT, AVERAGE_RIGHT = 0.95, 0.98
TOGETHER = 16


@dataclass(frozen=True, slots=True)
class Score:
    task: Task
    right: int
    asked: int
    pictures: int
    wrong: tuple[tuple[Conversation, str], ...]

    @property
    def share(self) -> float:
        return self.right / self.asked


def evaluate(product: Product, task: Task, conversations: int) -> Score:
    """Seeds 0 … conversations − 1 of the task's held-out ones."""
    wrong: list[tuple[Conversation, str]] = []
    pictures = 0
    for first in range(0, conversations, TOGETHER):
        drawn = [draw_held_out(task, seed) for seed in range(first, min(first + TOGETHER, conversations))]
        pictures += sum(len(conversation.scenes) for conversation in drawn)
        for conversation, answer in zip(drawn, product.last_answers(drawn), strict=True):
            if not is_right(answer, conversation.rounds[-1].answer):
                wrong.append((conversation, answer))
    return Score(task, conversations - len(wrong), conversations, pictures, tuple(wrong))


def _print(score: Score, show_wrong: bool) -> None:
    print(f"{score.task:<12}{score.right:>6} of {score.asked:<6}{score.share:>7.1%}{score.pictures:>8}", flush=True)
    if show_wrong:
        for conversation, answer in score.wrong:
            last = conversation.rounds[-1]
            print(f"    {last.question}  wanted: {last.answer}  said: {answer}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, default=CHECKPOINT)
    parser.add_argument("--conversations", type=int, help="per task; default: 2,000 pictures' worth of conversations")
    parser.add_argument("--wrong", action="store_true", help="print every wrong answer")
    parser.add_argument("--tasks", nargs="*", type=Task, default=list(Task))
    parser.add_argument("--quantization", type=Quantization, choices=list(Quantization), default=Quantization.NONE)
    parser.add_argument("--engines", type=Path, help="folder of engines built for TensorRT-LLM: answer with those")
    options = parser.parse_args()
    if options.engines and options.quantization is not Quantization.NONE:
        parser.error(f"--quantization {options.quantization} is the torch engine's; engines were built as they are")
    torch.set_num_threads(1)
    engine, about = (
        tensorrt_engine(options.checkpoint, options.engines)
        if options.engines
        else torch_engine(options.checkpoint, quantization=options.quantization)
    )
    product = Product(options.checkpoint, engine)
    print(about)
    with_pictures = len(Task) - len(TEXT_ONLY)
    scores = []
    print(f"{'task':<12}{'right':>6}    {'asked':<6}{'exact':>7}{'pictures':>8}")
    for task in options.tasks:
        count = options.conversations or (60 if task in TEXT_ONLY else -(-PICTURES // with_pictures))
        scores.append(evaluate(product, task, count))
        _print(scores[-1], options.wrong)
    average = sum(score.share for score in scores) / len(scores)
    print(f"{'average':<25}{average:>7.1%}{sum(score.pictures for score in scores):>8}")
    engine.close()
    return 0 if average >= AVERAGE_RIGHT and all(score.share >= FEWEST_RIGHT for score in scores) else 1


if __name__ == "__main__":
    sys.exit(main())
