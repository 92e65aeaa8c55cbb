"""What can never run is refused by name. Every backend: the torch engine, and TensorRT-LLM's executor over the fake, on
the same checkpoint."""

import math
from typing import Any

import pytest

from api.errors import REQUEST_FAULTS
from tests.fixtures.engines import (
    ENDS,
    OBJECT,
    VOCAB,
    answer,
    ask,
    drive,
    picture,
    schema,
    tokens_of,
)
from worker.engine.generation import Image, Sampling
from worker.engine.protocol import Rejected
from worker.engine.server import ServedEngine

pytestmark = pytest.mark.contract


_SHORT = Image(b"x" * 32, 1, b"12345")
REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"prompt_ids": []}, "invalid_prompt", "no tokens"),
    ({"prompt_ids": [1, -1]}, "invalid_prompt", r"prompt_ids\[1\] is -1"),
    ({"prompt_ids": [1, VOCAB]}, "invalid_prompt", rf"prompt_ids\[1\] is {VOCAB}"),
    ({"prompt_ids": [2**62]}, "invalid_prompt", r"prompt_ids\[0\]"),
    ({"prompt_ids": [1, *range(VOCAB, VOCAB + 3)], "images": [picture(1)]}, "invalid_prompt", "3 visual tokens"),
    ({"prompt_ids": [1, VOCAB + 1, VOCAB], "images": [picture(1)]}, "invalid_prompt", rf"is {VOCAB + 1}"),
    ({"max_tokens": 0}, "invalid_prompt", "max_tokens is 0"),
    ({"generated": [VOCAB]}, "invalid_prompt", r"generated\[0\]"),
    ({"stop_ids": [-5]}, "invalid_prompt", r"stop_ids\[0\] is -5"),
    ({"min_tokens": -1}, "invalid_sampling", "min_tokens is -1"),
    ({"images": [Image(b"x" * 32, 0, b"")]}, "invalid_image", "0 tiles"),
    ({"images": [_SHORT]}, "invalid_image", "5 bytes.* 37632"),
    ({"images": [Image(b"x", 1, b"x" * 37632)]}, "invalid_image", "1 bytes, not 32"),
    ({"sampling": Sampling(temperature=math.nan)}, "invalid_sampling", "temperature is nan"),
    ({"sampling": Sampling(temperature=-1)}, "invalid_sampling", "temperature is -1"),
    ({"sampling": Sampling(top_p=1.5)}, "invalid_sampling", "top_p is 1.5"),
    ({"sampling": Sampling(min_p=-0.1)}, "invalid_sampling", "min_p is -0.1"),
    ({"sampling": Sampling(top_k=-1)}, "invalid_sampling", "top_k is -1"),
    ({"sampling": Sampling(top_k=2**63)}, "invalid_sampling", f"top_k is {2**63}"),
    ({"sampling": Sampling(repetition_penalty=0.0)}, "invalid_sampling", "repetition_penalty is 0"),
    ({"sampling": Sampling(presence_penalty=3)}, "invalid_sampling", "presence_penalty is 3"),
    ({"sampling": Sampling(frequency_penalty=math.inf)}, "invalid_sampling", "frequency_penalty is inf"),
    ({"sampling": Sampling(logprobs=21)}, "invalid_sampling", "logprobs is 21"),
    ({"sampling": Sampling(logit_bias={VOCAB: 1.0})}, "invalid_sampling", f"token {VOCAB}"),
    ({"sampling": Sampling(logit_bias={1: math.nan})}, "invalid_sampling", "of 1 is nan"),
    ({"grammar": schema("{"), "stop_ids": ENDS}, "invalid_json_schema", "EOF|JSON"),
    (
        {"grammar": schema({"type": "array", "uniqueItems": True}), "stop_ids": ENDS},
        "invalid_json_schema",
        "uniqueItems",
    ),
    ({"grammar": schema(OBJECT), "stop_ids": ENDS, "min_tokens": 3}, "invalid_sampling", "min_tokens"),
]


@pytest.mark.parametrize(("change", "code", "named"), REFUSED)
def test_what_can_never_run_is_refused_by_name_and_who_runs_does_not_notice(
    change: dict[str, Any], code: str, named: str, engine: ServedEngine
) -> None:
    expected = answer(engine, ask("good", 80, images=[picture(69)], max_tokens=12))
    engine.submit(ask("good", 80, images=[picture(69)], max_tokens=12))
    engine.step()
    with pytest.raises(Rejected, match=named) as caught:
        engine.submit(ask("bad", 81, **change))
    assert caught.value.code == code and code in REQUEST_FAULTS
    assert tokens_of(drive(engine)["good"])[-8:] == expected[-8:]
