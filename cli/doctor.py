"""`vlmq doctor`: whether a model's checkpoint is whole, what it needs, and whether this machine can serve it."""

from collections.abc import Callable

from rich.markup import escape

from cli import machine
from cli.errors import CommandError
from cli.terminal import console
from worker.engine.checkpoint import Checkpoint, inspect
from worker.engine.config import CheckpointError, InternVLConfig
from worker.engine.memory import Load, Memory, memory_of
from worker.prompt import SPECIAL_TOKENS
from worker.settings import ModelSettings
from worker.tokenizer import ChatTokenizer, TokenizerError

_FAMILIES = {"qwen2": "Qwen2.5", "internlm2": "InternLM2.5", "internlm3": "InternLM3", "llama": "Llama (InternLM)"}
# What the CUDA libraries take for themselves.
_GPU_OVERHEAD = 1 << 30


def run(model: str, path: str) -> None:
    """Prints what it finds. Raises CommandError when there are problems, SettingsError for an unknown model."""
    settings = ModelSettings.load(model, path)
    console.print(f"[bold]{escape(model)}[/bold]  {escape(str(settings.path))}")
    problems = 0
    checkpoint = None
    try:
        checkpoint = inspect(settings.path)
        good(f"checkpoint: {_described(checkpoint)}")
    except CheckpointError as exc:
        problems += bad("checkpoint", str(exc))
    problems += _check_tokenizer(settings, checkpoint)
    if checkpoint is not None:
        memory = memory_of(checkpoint.config, load_of(settings))
        _tell_memory(memory, settings)
        problems += _check_machine(memory, settings)
    if problems:
        raise CommandError(f"{model} cannot be served here: {problems} problem{'s' if problems > 1 else ''}")


def good(text: str) -> None:
    console.print(f"[green]✓[/green] {escape(text)}")


def bad(what: str, text: str) -> int:
    """Counts itself."""
    console.print(f"[red]✗[/red] {escape(what)}: {escape(text)}")
    return 1


def size(count: float) -> str:
    """Bytes in binary units: 1.5 GiB."""
    for unit in ("bytes", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def load_of(settings: ModelSettings) -> Load:
    return Load(
        dtype=settings.dtype,
        eight_bit=settings.quantization != "none",
        slots=settings.slots,
        cache_tokens=settings.pages * settings.page_size,
        prefill_chunk=settings.prefill_chunk,
        tiles_per_step=settings.tiles_per_step,
        embedding_bytes=settings.embedding_mib << 20,
        decode_copies=settings.device == "cpu" and settings.dtype == "float32",
    )


def _described(checkpoint: Checkpoint) -> str:
    config = checkpoint.config
    v, d = config.vision, config.decoder
    count = checkpoint.parameters
    amount = f"{count / 1e9:.2f} billion" if count >= 1e9 else f"{count / 1e6:.1f} million"
    stored = "/".join(sorted({tensor.dtype for tensor in checkpoint.tensors.values()}))
    files = f"{len(checkpoint.files)} file{'s' if len(checkpoint.files) > 1 else ''}"
    return (
        f"{config.layout.value}, {amount} parameters, {len(checkpoint.tensors)} tensors in {files}, {stored}\n"
        f"  language  {_FAMILIES[d.family]}, {d.layers} layers of {d.hidden}, {d.heads}/{d.kv_heads} heads, "
        f"vocabulary {d.vocab_size}, {_context(config)}\n"
        f"  vision    {v.layers} layers of {v.hidden}, {v.heads} heads, {'RMSNorm' if v.rms_norm else 'LayerNorm'}; "
        f"{v.tokens_per_tile} tokens per tile of {v.image_size} pixels, at most {_tiles(config)} tiles per image"
    )


def _context(config: InternVLConfig) -> str:
    d = config.decoder
    if d.rope_factor is None:
        return f"context {d.context_length}"
    return f"context {d.context_length} (trained {d.trained_length}, dynamic RoPE beyond)"


def _tiles(config: InternVLConfig) -> int:
    most = config.tiling.max_tiles
    return most + 1 if config.tiling.use_thumbnail and most > 1 else most


def _check_tokenizer(settings: ModelSettings, checkpoint: Checkpoint | None) -> int:
    try:
        tokenizer = ChatTokenizer.load(settings.path)
        ids = {token: tokenizer.id_of(token) for token in SPECIAL_TOKENS}
    except TokenizerError as exc:
        return bad("tokenizer", str(exc))
    entries = tokenizer.whole.get_vocab_size()
    if checkpoint is not None and max(ids.values()) >= checkpoint.config.decoder.vocab_size:
        name = max(ids, key=lambda token: ids[token])
        vocabulary = checkpoint.config.decoder.vocab_size
        return bad("tokenizer", f"{name} is token {ids[name]}, but the model's vocabulary has {vocabulary}")
    good(f"tokenizer: {entries} entries, {', '.join(f'{token} {number}' for token, number in ids.items())}")
    return 0


def _tell_memory(memory: Memory, settings: ModelSettings) -> None:
    kind = settings.dtype if settings.quantization == "none" else f"{settings.dtype}, layers in {settings.quantization}"
    tokens = settings.pages * settings.page_size
    rows = [
        ("weights", memory.weights, kind),
        ("KV cache", memory.cache, f"{tokens} tokens; {size(1000 * memory.cache_per_token)} per 1,000"),
        ("copies", memory.copies, "of the cache, for decoding on a CPU; at most"),
        ("vision", memory.vision, f"at most, {settings.tiles_per_step} tiles at once"),
        ("language", memory.language, f"at most, {settings.prefill_chunk} tokens at once, {settings.slots} slots"),
        ("images", memory.embeddings, "cache of encoded images"),
        ("together", memory.total, ""),
    ]
    for name, count, note in rows:
        if not count:
            continue
        console.print(f"  {name:<9} {size(count):>10}  [dim]{escape(note)}[/dim]")


def _check_machine(memory: Memory, settings: ModelSettings) -> int:
    check: Callable[[Memory, ModelSettings], int] = _check_ram if settings.device == "cpu" else _check_gpu
    return check(memory, settings)


def _check_ram(memory: Memory, settings: ModelSettings) -> int:
    if settings.quantization == "fp8":
        return bad("machine", f'quantization = "fp8" needs a GPU that has fp8, and device = {settings.device!r}')
    available = machine.available_ram()
    if memory.total > available:
        return bad("machine", f"{size(memory.total)} needed, {size(available)} of main memory is available")
    good(f"machine: {size(available)} of main memory is available")
    return 0


def _check_gpu(memory: Memory, settings: ModelSettings) -> int:
    found = machine.gpus()
    if not found:
        return bad("machine", f"device = {settings.device!r}, but nvidia-smi finds no GPU here")
    best = max(found, key=lambda gpu: gpu.free)
    about = f"{best.name} with {size(best.total)}, {size(best.free)} free"
    if settings.quantization == "fp8" and not best.has_fp8:
        return bad("machine", f'quantization = "fp8", which {best.name} does not have; "int8" works')
    if memory.total + _GPU_OVERHEAD > best.free:
        return bad("machine", f"{size(memory.total + _GPU_OVERHEAD)} needed with CUDA's own, the best GPU is {about}")
    good(f"machine: {about}" + (f", one of {len(found)} GPUs" if len(found) > 1 else ""))
    return 0
