"""The loss and accuracy curves of a training log as one picture."""

import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")


def plot(log: Path, picture: Path) -> None:
    """`log` has one JSON object a line: `minutes`, `loss`, and now and then `scores` by task."""
    from matplotlib import pyplot

    entries = [json.loads(line) for line in log.read_text().splitlines()]
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(12, 4.5))
    left.plot(
        [e["minutes"] for e in entries if "loss" in e], [e["loss"] for e in entries if "loss" in e], linewidth=0.8
    )
    left.set(xlabel="minutes", ylabel="loss of the answers' tokens", yscale="log", title="training loss")
    scored = [e for e in entries if "scores" in e]
    for task in scored[-1]["scores"] if scored else ():
        right.plot(
            [e["minutes"] for e in scored], [e["scores"].get(task, 0.0) for e in scored], label=task, linewidth=1
        )
    right.set(xlabel="minutes", ylabel="exact answers", ylim=(0, 1.02), title="held-out accuracy during training")
    right.legend(fontsize=7, ncols=2)
    figure.tight_layout()
    figure.savefig(picture, dpi=90)
    pyplot.close(figure)
