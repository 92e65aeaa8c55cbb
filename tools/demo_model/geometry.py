"""The demo model's sizes, shared by data, training and export. Knows no torch."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Geometry:
    """InternVL with small numbers: every field has its counterpart in the checkpoint's `config.json`."""

    tile: int = 120
    patch: int = 10
    max_tiles: int = 6
    vision_hidden: int = 256
    vision_layers: int = 5
    vision_heads: int = 4
    vision_mlp: int = 768
    hidden: int = 256
    layers: int = 6
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 64
    mlp: int = 512
    eps: float = 1e-6
    rope_theta: float = 10_000.0
    context_length: int = 4096

    @property
    def patches(self) -> int:
        """Patches along one side of a tile."""
        return self.tile // self.patch

    @property
    def cells(self) -> int:
        """Visual tokens along one side of a tile, after the pixel unshuffle by a half."""
        return self.patches // 2

    @property
    def tokens_per_tile(self) -> int:
        return self.cells**2


DEMO = Geometry()
