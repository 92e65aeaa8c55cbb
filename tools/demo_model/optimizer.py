"""Muon for the layers' matrices, AdamW for the rest, over float32 masters of a bfloat16 model.

Muon: momentum orthogonalised by five Newton–Schulz steps (Keller Jordan, "Muon: an optimizer for hidden layers in
neural networks"), scaled to AdamW's step size by 0.2·√(larger side) so that one learning rate serves both.
"""

from collections import defaultdict
from typing import Any

import torch
from torch import Tensor, nn


def orthogonalised(matrices: Tensor, steps: int = 5) -> Tensor:
    """`[n, rows, columns]` → about the nearest semi-orthogonal matrices."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrices.bfloat16()
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    out: Tensor = (x.mT if tall else x).float()
    return out


def is_layer_matrix(name: str, parameter: Tensor) -> bool:
    return parameter.ndim == 2 and "layers." in name


class Optimizer:
    """Owns the masters; the model's parameters are their rounded copies."""

    def __init__(self, model: nn.Module, weight_decay: float = 0.02) -> None:
        self._weight_decay = weight_decay
        self._parameters = dict(model.named_parameters())
        self.masters = {name: p.detach().float().clone() for name, p in self._parameters.items()}
        groups: dict[tuple[int, ...], list[str]] = defaultdict(list)
        for name, p in self._parameters.items():
            if is_layer_matrix(name, p):
                groups[tuple(p.shape)].append(name)
        self._groups = list(groups.values())
        self._rest = [name for name, p in self._parameters.items() if not is_layer_matrix(name, p)]
        self.momentum = [torch.stack([torch.zeros_like(self.masters[n]) for n in names]) for names in self._groups]
        self._adam = torch.optim.AdamW(
            [
                {
                    "params": [self.masters[n] for n in self._rest if self._parameters[n].ndim == 2],
                    "weight_decay": 0.01,
                },
                {"params": [self.masters[n] for n in self._rest if self._parameters[n].ndim != 2], "weight_decay": 0.0},
            ],
            lr=0.0,
            betas=(0.9, 0.98),
            eps=1e-10,
        )

    @torch.no_grad()
    def step(self, lr: float) -> Tensor:
        """Applies and clears the gradients; returns their norm."""
        gradients = {n: p.grad.float() for n, p in self._parameters.items() if p.grad is not None}
        norm: Tensor = torch.stack(torch._foreach_norm(list(gradients.values()))).norm()
        clip = (1.0 / (norm + 1e-6)).clamp(max=1.0)
        for names, momentum in zip(self._groups, self.momentum, strict=True):
            self._muon(names, momentum, torch.stack([gradients[n] for n in names]), lr)
        for name in self._rest:
            self.masters[name].grad = gradients[name] * clip if name in gradients else None
        for group in self._adam.param_groups:
            group["lr"] = lr
        self._adam.step()
        names = list(self._parameters)
        torch._foreach_copy_([self._parameters[n] for n in names], [self.masters[n] for n in names])
        for p in self._parameters.values():
            p.grad = None
        return norm

    def _muon(self, names: list[str], momentum: Tensor, gradient: Tensor, lr: float) -> None:
        momentum.lerp_(gradient, 0.05)
        update = orthogonalised(gradient.lerp(momentum, 0.95))
        scale = 0.2 * max(update.shape[-2:]) ** 0.5
        for name, change in zip(names, update, strict=True):
            self.masters[name].mul_(1 - lr * self._weight_decay).add_(change, alpha=-lr * scale)

    def state(self) -> dict[str, Any]:
        return {"masters": self.masters, "momentum": self.momentum, "adam": self._adam.state_dict()}

    def load(self, state: dict[str, Any]) -> None:
        """In place, and into the model."""
        with torch.no_grad():
            for name, master in self.masters.items():
                master.copy_(state["masters"][name])
                self._parameters[name].copy_(master)
            for mine, theirs in zip(self.momentum, state["momentum"], strict=True):
                mine.copy_(theirs)
        self._adam.load_state_dict(state["adam"])
