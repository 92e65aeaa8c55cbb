"""What an engine runs and what comes out of it: token ids, tiles, sampling, limits."""

from enum import StrEnum

import msgspec


class Sampling(msgspec.Struct, frozen=True):
    """Temperature 0 is greedy. `top_k` 0, `min_p` 0, penalties 1/0/0 are off. `logprobs` None: off; n: n likeliest
    beside the chosen token's own. The random number of position p depends on `(seed, p)` alone, where p counts the
    generated tokens of the request from 0, earlier attempts' included."""

    seed: int = 0
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logprobs: int | None = None
    logit_bias: dict[int, float] = msgspec.field(default_factory=dict)


class Image(msgspec.Struct, frozen=True):
    """`pixels` is uint8 RGB `[tiles, size, size, 3]`, row-major; `digest` (32 bytes) names exactly these pixels."""

    digest: bytes
    tiles: int
    pixels: bytes


class GrammarKind(StrEnum):
    """JSON_OBJECT: any object. JSON_SCHEMA: what the schema describes. LARK: what the rules derive."""

    JSON_OBJECT = "json_object"
    JSON_SCHEMA = "json_schema"
    LARK = "lark"


class Grammar(msgspec.Struct, frozen=True):
    """`schema` is the text of a JSON schema, for JSON_SCHEMA; `rules` are llguidance's Lark from `start` on, for LARK,
    where `<name>` stands for the added token of that name."""

    kind: GrammarKind
    schema: str = ""
    rules: str = ""


class Generation(msgspec.Struct, frozen=True):
    """One sequence to generate. In `prompt_ids` the k-th visual token of the request has the virtual id
    `vocab_size + k`; images stand in the order of their virtual ids, `tokens_per_tile × tiles` each. `generated` are
    tokens that an earlier attempt drew: they are kept, counted against `max_tokens`, and not emitted again. The
    sequence ends at one of `stop_ids`, none of which is drawn among the first `min_tokens`, or after `max_tokens`
    generated tokens. Of those that wait the smallest `lane` is admitted first. Requests with another `salt` share
    neither cached prefixes nor encoded images. With a `grammar` only tokens are drawn that keep it, and a stop id only
    where it is fulfilled; `max_tokens` may still cut the answer short."""

    id: str
    prompt_ids: list[int]
    sampling: Sampling
    max_tokens: int
    stop_ids: list[int] = msgspec.field(default_factory=list)
    images: list[Image] = msgspec.field(default_factory=list)
    generated: list[int] = msgspec.field(default_factory=list)
    salt: int = 0
    min_tokens: int = 0
    lane: int = 0
    grammar: Grammar | None = None


class Finish(StrEnum):
    """STOP: an id of `stop_ids` was drawn. LENGTH: `max_tokens` or the context is reached. CANCELLED: by cancel.
    ERROR: this sequence alone failed, see `error`."""

    STOP = "stop"
    LENGTH = "length"
    CANCELLED = "cancelled"
    ERROR = "error"


class TopLogprob(msgspec.Struct, frozen=True, array_like=True):
    id: int
    logprob: float


class SampledToken(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True):
    id: int
    logprob: float | None = None
    top: list[TopLogprob] = msgspec.field(default_factory=list)


class TokenOutput(msgspec.Struct, frozen=True, omit_defaults=True):
    """New tokens of one generation since the last output of it. The one with `finish` is the last; it may have no
    tokens (cancelled). A drawn stop id is among the tokens. `cached_tokens` (prompt tokens whose KV was reused) is
    set on the first output of a generation."""

    id: str
    tokens: list[SampledToken] = msgspec.field(default_factory=list)
    finish: Finish | None = None
    error: str = ""
    cached_tokens: int | None = None


class EngineStats(msgspec.Struct, frozen=True):
    """A snapshot; counters count from the engine's start. `tokens_per_s` are generated, `served_per_s` those and the
    prompts' together. `steps_by_batch` maps a decode batch size to how many steps ran with it."""

    waiting: int
    running: int
    slots: int
    pages_free: int
    pages_cached: int
    pages_total: int
    steps: int
    prompt_tokens: int
    cached_tokens: int
    generated_tokens: int
    tiles_encoded: int
    tiles_reused: int
    tokens_per_s: float
    steps_by_batch: dict[int, int]
    served_per_s: float = 0.0
