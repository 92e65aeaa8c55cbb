"""The demo model as the product serves it: its image decoding, tiles, prompt and engine, in this process.

Only the queue, the database and HTTP are left out. Conversations run together, as inflight batching has it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path

import torch
from PIL import Image

from jobs.request import ImagePart, Message, Part, Role, TextPart
from tools.demo_model.conversation import Conversation, Shown
from tools.demo_model.drawing import draw
from tools.demo_model.prompt import question_text
from tools.demo_model.scene import Scene
from worker.engine.config import TilingConfig, load_config
from worker.engine.generation import Finish, Generation, Sampling
from worker.engine.generation import Image as Tiles
from worker.engine.protocol import Engine
from worker.engine.torch.engine import TorchEngine
from worker.engine.torch.internvl import InternVL
from worker.engine.torch.options import EngineOptions
from worker.engine.torch.quantization import Quantization
from worker.media.image import ImageLimits, open_image
from worker.prompt import STOP_TOKENS, PromptBuilder
from worker.tiles import at_detail, cut
from worker.tokenizer import ChatTokenizer

LONGEST_ANSWER = 96
_LIMITS = ImageLimits(max_pixels=50_000_000)


def _no_progress(done: float, what: str) -> None:
    pass


def png_of(picture: Image.Image) -> bytes:
    data = BytesIO()
    picture.save(data, "PNG", compress_level=1)
    return data.getvalue()


@dataclass(frozen=True, slots=True)
class Talk:
    """A conversation under way: what was said, and its pictures' tiles."""

    conversation: Conversation
    messages: tuple[Message, ...]
    images: tuple[Tiles, ...]

    def with_answer(self, answer: str, next_round: int) -> "Talk":
        said = Message(Role.ASSISTANT, (TextPart(answer),))
        asked = Message(Role.USER, (TextPart(self.conversation.rounds[next_round].question),))
        return replace(self, messages=(*self.messages, said, asked))


def torch_engine(
    checkpoint: Path, slots: int = 16, quantization: Quantization = Quantization.NONE
) -> tuple[Engine, str]:
    """And what is to be said of it. Raises CheckpointError, QuantizationError."""
    model = InternVL.load(checkpoint, torch.device("cpu"), torch.float32, _no_progress, quantization)
    engine = TorchEngine(model, EngineOptions(slots=slots, pages=slots * 80))
    return engine, f"torch, weights take {model.weight_bytes() / 1e6:.1f} MB"


def tensorrt_engine(checkpoint: Path, engines: Path, slots: int = 16) -> tuple[Engine, str]:
    """Over what was built into `engines`; pictures in torch where no vision engine was. Raises NotUsable."""
    from worker.engine.tensorrt.boot import BootOptions, start

    options = BootOptions(
        checkpoint=checkpoint,
        engines=engines,
        vision="tensorrt" if (engines / "vision").is_dir() else "torch",
        device="cuda" if torch.cuda.is_available() else "cpu",
        tiles_per_step=16,
        embedding_bytes=256 << 20,
        slots=slots,
        cache_share=0.9,
        prefix_reuse=True,
    )
    engine = start(options, _no_progress, _no_progress)
    return engine, engine.device


class Product:
    def __init__(self, checkpoint: Path, engine: Engine) -> None:
        """Raises CheckpointError or TokenizerError, as the product's start does."""
        config = load_config(checkpoint)
        self._tokenizer = ChatTokenizer.load(checkpoint)
        self._tiling: TilingConfig = config.tiling
        self._size = config.vision.image_size
        self._stop_ids = self._tokenizer.ids_of(STOP_TOKENS)
        self._prompts = PromptBuilder(
            self._tokenizer, config.decoder.vocab_size, config.vision.tokens_per_tile, config.decoder.context_length
        )
        self._engine = engine
        self._made = 0

    def last_answers(self, conversations: Sequence[Conversation]) -> list[str]:
        """What the model says in the last round of each; in earlier rounds its own answers stand."""
        talks = {k: self._open(conversation) for k, conversation in enumerate(conversations)}
        last: dict[int, str] = {}
        number = 0
        while talks:
            last |= dict(zip(talks, self._answer(list(talks.values())), strict=True))
            number += 1
            talks = {
                k: talk.with_answer(last[k], number)
                for k, talk in talks.items()
                if number < len(talk.conversation.rounds)
            }
        return [last[k] for k in range(len(conversations))]

    def _open(self, conversation: Conversation) -> Talk:
        images = tuple(self._tiles(scene, conversation.shown) for scene in conversation.scenes)
        parts: tuple[Part, ...] = (*(ImagePart("drawn") for _ in images), TextPart(question_text(conversation)))
        return Talk(conversation, (Message(Role.USER, parts),), images)

    def _tiles(self, scene: Scene, shown: Shown) -> Tiles:
        tiling = at_detail(self._tiling, "low" if shown is Shown.FRAMES else "auto")
        return cut(open_image(png_of(draw(scene)), _LIMITS).decode(), tiling, self._size)

    def _answer(self, talks: Sequence[Talk]) -> list[str]:
        """One greedy answer each, all in the engine at once."""
        tokens: dict[str, list[int]] = {}
        for talk in talks:
            self._made += 1
            prompt = self._prompts.build(talk.messages, [image.tiles for image in talk.images])
            room = self._prompts.room(prompt, LONGEST_ANSWER)
            generation = Generation(
                f"answer-{self._made}", prompt.ids, Sampling(), room, self._stop_ids, list(talk.images)
            )
            tokens[generation.id] = []
            self._engine.submit(generation)
        while self._engine.has_work():
            for output in self._engine.step():
                if output.finish is Finish.ERROR:
                    raise RuntimeError(f"generation {output.id}: {output.error}")
                tokens[output.id] += [token.id for token in output.tokens]
        decode = self._tokenizer.whole.decode
        return [decode([i for i in ids if i not in self._stop_ids]) for ids in tokens.values()]
