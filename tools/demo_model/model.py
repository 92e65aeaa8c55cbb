"""InternVL for training: InternViT, pixel unshuffle, `mlp1`, a Qwen2 decoder. Its parameters' names are those of the
original checkpoint layout, so that the exported file is the state of this module. No cache: sequences are whole."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tools.demo_model.geometry import Geometry

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class VisionAttention(nn.Module):
    def __init__(self, g: Geometry) -> None:
        super().__init__()
        self.heads = g.vision_heads
        self.qkv = nn.Linear(g.vision_hidden, 3 * g.vision_hidden)
        self.proj = nn.Linear(g.vision_hidden, g.vision_hidden)

    def forward(self, x: Tensor) -> Tensor:
        n, t, d = x.shape
        q, k, v = self.qkv(x).view(n, t, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        out = F.scaled_dot_product_attention(q, k, v)
        mixed: Tensor = self.proj(out.transpose(1, 2).reshape(n, t, d))
        return mixed


class VisionMlp(nn.Module):
    def __init__(self, g: Geometry) -> None:
        super().__init__()
        self.fc1 = nn.Linear(g.vision_hidden, g.vision_mlp)
        self.fc2 = nn.Linear(g.vision_mlp, g.vision_hidden)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return out


class VisionLayer(nn.Module):
    def __init__(self, g: Geometry) -> None:
        super().__init__()
        self.attn = VisionAttention(g)
        self.mlp = VisionMlp(g)
        self.norm1 = nn.LayerNorm(g.vision_hidden, eps=g.eps)
        self.norm2 = nn.LayerNorm(g.vision_hidden, eps=g.eps)
        self.ls1 = nn.Parameter(torch.full((g.vision_hidden,), 0.5))
        self.ls2 = nn.Parameter(torch.full((g.vision_hidden,), 0.5))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x)) * self.ls1
        out: Tensor = x + self.mlp(self.norm2(x)) * self.ls2
        return out


class Embeddings(nn.Module):
    def __init__(self, g: Geometry) -> None:
        super().__init__()
        self.class_embedding = nn.Parameter(torch.randn(1, 1, g.vision_hidden) * 0.02)
        self.patch_embedding = nn.Conv2d(3, g.vision_hidden, g.patch, g.patch)
        self.position_embedding = nn.Parameter(torch.randn(1, g.patches**2 + 1, g.vision_hidden) * 0.02)

    def forward(self, pixels: Tensor) -> Tensor:
        """`[n, 3, size, size]` → `[n, 1 + patches², d]`. The convolution as a matrix product: stride equals kernel."""
        n, _, height, width = pixels.shape
        p = self.patch_embedding.kernel_size[0]
        patches = pixels.view(n, 3, height // p, p, width // p, p).permute(0, 2, 4, 1, 3, 5).reshape(n, -1, 3 * p * p)
        embedded = F.linear(patches, self.patch_embedding.weight.flatten(1), self.patch_embedding.bias)
        return torch.cat([self.class_embedding.expand(n, -1, -1), embedded], 1) + self.position_embedding


class VisionEncoder(nn.Module):
    def __init__(self, g: Geometry) -> None:
        super().__init__()
        self.layers = nn.ModuleList(VisionLayer(g) for _ in range(g.vision_layers))


class VisionModel(nn.Module):
    def __init__(self, g: Geometry) -> None:
        super().__init__()
        self.embeddings = Embeddings(g)
        self.encoder = VisionEncoder(g)

    def forward(self, pixels: Tensor) -> Tensor:
        x: Tensor = self.embeddings(pixels)
        for layer in self.encoder.layers:
            x = layer(x)
        return x


class DecoderAttention(nn.Module):
    def __init__(self, g: Geometry) -> None:
        super().__init__()
        self.head_dim = g.head_dim
        self.q_proj = nn.Linear(g.hidden, g.heads * g.head_dim)
        self.k_proj = nn.Linear(g.hidden, g.kv_heads * g.head_dim)
        self.v_proj = nn.Linear(g.hidden, g.kv_heads * g.head_dim)
        self.o_proj = nn.Linear(g.heads * g.head_dim, g.hidden, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        b, t, _ = x.shape
        q = self.q_proj(x).view(b, t, -1, self.head_dim).transpose(1, 2)
        k = self.k_proj(x).view(b, t, -1, self.head_dim).transpose(1, 2)
        v = self.v_proj(x).view(b, t, -1, self.head_dim).transpose(1, 2)
        out = F.scaled_dot_product_attention(
            rotate(q, cos, sin), rotate(k, cos, sin), v, is_causal=True, enable_gqa=True
        )
        mixed: Tensor = self.o_proj(out.transpose(1, 2).reshape(b, t, -1))
        return mixed


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat([-second, first], -1) * sin


class DecoderMlp(nn.Module):
    def __init__(self, g: Geometry) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(g.hidden, g.mlp, bias=False)
        self.up_proj = nn.Linear(g.hidden, g.mlp, bias=False)
        self.down_proj = nn.Linear(g.mlp, g.hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
        return out


class DecoderLayer(nn.Module):
    def __init__(self, g: Geometry) -> None:
        super().__init__()
        self.self_attn = DecoderAttention(g)
        self.mlp = DecoderMlp(g)
        self.input_layernorm = nn.RMSNorm(g.hidden, eps=g.eps)
        self.post_attention_layernorm = nn.RMSNorm(g.hidden, eps=g.eps)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), cos, sin)
        out: Tensor = x + self.mlp(self.post_attention_layernorm(x))
        return out


class Decoder(nn.Module):
    def __init__(self, g: Geometry, vocabulary: int) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(vocabulary, g.hidden)
        self.layers = nn.ModuleList(DecoderLayer(g) for _ in range(g.layers))
        self.norm = nn.RMSNorm(g.hidden, eps=g.eps)


class LanguageModel(nn.Module):
    def __init__(self, g: Geometry, vocabulary: int) -> None:
        super().__init__()
        self.model = Decoder(g, vocabulary)
        self.lm_head = nn.Linear(g.hidden, vocabulary, bias=False)


@dataclass(frozen=True, slots=True)
class Output:
    """`logits` [asked, vocabulary]; `visual` [N·tokens, hidden], what the decoder was given of the pictures."""

    logits: Tensor
    visual: Tensor


class DemoModel(nn.Module):
    def __init__(self, g: Geometry, vocabulary: int) -> None:
        super().__init__()
        self.geometry = g
        self.vision_model = VisionModel(g)
        wide = 4 * g.vision_hidden
        self.mlp1 = nn.Sequential(
            nn.LayerNorm(wide), nn.Linear(wide, g.hidden), nn.GELU(), nn.Linear(g.hidden, g.hidden)
        )
        self.language_model = LanguageModel(g, vocabulary)
        self.apply(_initialise)

    def see(self, tiles: Tensor) -> Tensor:
        """uint8 `[n, size, size, 3]` → `[n·tokens_per_tile, hidden]`."""
        dtype = self.vision_model.embeddings.class_embedding.dtype
        if not len(tiles):
            return torch.zeros((0, self.geometry.hidden), dtype=dtype, device=tiles.device)
        mean, std = (torch.tensor(values, device=tiles.device) for values in (MEAN, STD))
        pixels = ((tiles.float() / 255 - mean) / std).permute(0, 3, 1, 2).to(dtype)
        states = self.vision_model(pixels)[:, 1:]
        out: Tensor = self.mlp1(unshuffle(states, self.geometry.patches))
        return out.reshape(-1, out.shape[-1])

    def forward(self, ids: Tensor, tiles: Tensor, visual_at: Tensor, asked: Tensor) -> Output:
        """Positions `visual_at` and `asked` count in the flattened `ids` [B, T]."""
        g, decoder = self.geometry, self.language_model.model
        x = decoder.embed_tokens(ids)
        visual = self.see(tiles)
        x = x.view(-1, g.hidden).index_copy(0, visual_at, visual).view_as(x)
        cos, sin = rotary(ids.shape[1], g, ids.device, x.dtype)
        for layer in decoder.layers:
            x = layer(x, cos, sin)
        states = decoder.norm(x.reshape(-1, g.hidden).index_select(0, asked))
        return Output(self.language_model.lm_head(states), visual)


def unshuffle(states: Tensor, side: int) -> Tensor:
    """InternVL's pixel shuffle v2 by 0.5: `[n, side², c]` → `[n, side²/4, 4c]`."""
    n, _, c = states.shape
    x = states.view(n, side, side // 2, 2 * c).permute(0, 2, 1, 3).reshape(n, side // 2, side // 2, 4 * c)
    return x.permute(0, 2, 1, 3).reshape(n, -1, 4 * c)


def rotary(length: int, g: Geometry, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    frequencies = g.rope_theta ** (-torch.arange(0, g.head_dim, 2, device=device).float() / g.head_dim)
    angles = torch.arange(length, device=device).float()[:, None] * frequencies
    angles = torch.cat([angles, angles], -1)
    return angles.cos().to(dtype), angles.sin().to(dtype)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=module.in_features**-0.5)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Embedding):
        nn.init.normal_(module.weight, std=0.5)
