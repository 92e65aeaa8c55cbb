"""InternViT, pixel unshuffle and the projector: uint8 tiles in, visual tokens of the language model's width out."""

import torch
import torch.nn.functional as F
from torch import nn

from worker.engine.config import VisionConfig

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
# nn.LayerNorm's own default: the projector's norm has no entry in the config.
PROJECTOR_EPS = 1e-5


class Norm(nn.Module):
    """LayerNorm, or RMSNorm without a bias."""

    def __init__(self, width: int, eps: float, rms: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width))
        self.bias = None if rms else nn.Parameter(torch.empty(width))
        self._eps = eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.bias is None:
            return F.rms_norm(x, self.weight.shape, self.weight, self._eps)
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, self._eps)


class VisionLayer(nn.Module):
    """Pre-norm attention and MLP, each scaled per channel (`scale1`, `scale2`) before it is added."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        width = config.hidden
        self.norm1 = Norm(width, config.eps, config.rms_norm)
        self.qkv = nn.Linear(width, 3 * width, bias=config.qkv_bias)
        # InternViT-6B normalises queries and keys over all heads together.
        self.query_norm = Norm(width, config.eps, rms=True) if config.qk_norm else nn.Identity()
        self.key_norm = Norm(width, config.eps, rms=True) if config.qk_norm else nn.Identity()
        self.out = nn.Linear(width, width)
        self.scale1 = nn.Parameter(torch.empty(width))
        self.norm2 = Norm(width, config.eps, config.rms_norm)
        self.fc1 = nn.Linear(width, config.mlp)
        self.fc2 = nn.Linear(config.mlp, width)
        self.scale2 = nn.Parameter(torch.empty(width))
        self._heads = config.heads

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`[N, patches + 1, hidden]` → the same."""
        x = torch.addcmul(x, self._attention(self.norm1(x)), self.scale1)
        return torch.addcmul(x, self.fc2(F.gelu(self.fc1(self.norm2(x)))), self.scale2)

    def _attention(self, x: torch.Tensor) -> torch.Tensor:
        tiles, tokens, width = x.shape
        query, key, value = self.qkv(x).chunk(3, dim=-1)
        parts = (self.query_norm(query), self.key_norm(key), value)
        heads = (part.view(tiles, tokens, self._heads, -1).transpose(1, 2) for part in parts)
        attended: torch.Tensor = F.scaled_dot_product_attention(*heads)
        out: torch.Tensor = self.out(attended.transpose(1, 2).reshape(tiles, tokens, width))
        return out


class Vision(nn.Module):
    """`patch` is the patch convolution as a linear layer over `3 × patch × patch` values."""

    def __init__(self, config: VisionConfig, decoder_hidden: int) -> None:
        super().__init__()
        grid, width = config.image_size // config.patch_size, config.hidden
        factor = round(1 / config.downsample_ratio)
        self.class_token = nn.Parameter(torch.empty(width))
        self.positions = nn.Parameter(torch.empty(grid * grid + 1, width))
        self.patch = nn.Linear(3 * config.patch_size**2, width)
        self.layers = nn.ModuleList(VisionLayer(config) for _ in range(config.layers))
        self.projector_norm = Norm(width * factor**2, PROJECTOR_EPS, rms=False)
        self.projector1 = nn.Linear(width * factor**2, decoder_hidden)
        self.projector2 = nn.Linear(decoder_hidden, decoder_hidden)
        self._grid, self._patch_size, self._factor = grid, config.patch_size, factor
        self._transposed = config.ps_version == "v2"
        self.tile_size = config.image_size
        self._layers_used = config.layers_used

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """uint8 `[N, size, size, 3]` → `[N, tokens_per_tile, decoder hidden]`."""
        x = self.patch(self._patches(pixels))
        x = torch.cat((self.class_token.expand(x.shape[0], 1, -1), x), dim=1) + self.positions
        for layer in self.layers[: self._layers_used]:
            x = layer(x)
        x = self.projector_norm(self._unshuffle(x[:, 1:]))
        projected: torch.Tensor = self.projector2(F.gelu(self.projector1(x)))
        return projected

    def _patches(self, pixels: torch.Tensor) -> torch.Tensor:
        """Normalised pixels in the order of a convolution's weights: `[N, patches, 3 × patch × patch]`."""
        mean, std = (torch.tensor(value, device=pixels.device) for value in (MEAN, STD))
        x = ((pixels.float() / 255 - mean) / std).to(self.patch.weight.dtype)
        x = x.view(-1, self._grid, self._patch_size, self._grid, self._patch_size, 3)
        return x.permute(0, 1, 3, 5, 2, 4).reshape(pixels.shape[0], self._grid**2, -1)

    def _unshuffle(self, x: torch.Tensor) -> torch.Tensor:
        """Joins squares of `factor × factor` patches into one token. Version v1 leaves rows and columns swapped."""
        tiles, _, width = x.shape
        small = self._grid // self._factor
        x = x.view(tiles, small, self._factor, small, self._factor, width)
        x = x.permute(0, 1, 3, 2, 4, 5) if self._transposed else x.permute(0, 3, 1, 2, 4, 5)
        return x.reshape(tiles, small * small, -1)
