import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.engine.frames import FrameError, encode, from_engine_decoder, to_engine_decoder
from worker.engine.generation import Finish, Generation, Image, SampledToken, Sampling, TokenOutput, TopLogprob
from worker.engine.messages import Cancel, FromEngine, Loading, Outputs, Stop, Submit, ToEngine

pytestmark = pytest.mark.unit

TO_ENGINE: list[ToEngine] = [
    Submit(Generation("g", [1, 2], Sampling(logit_bias={3: 0.5}), 4, images=[Image(b"d" * 32, 1, b"\x00\xff")])),
    Cancel("g"),
    Stop(),
]
FROM_ENGINE: list[FromEngine] = [
    Loading(0.5, "weights"),
    Outputs([TokenOutput("g", [SampledToken(7, -0.5, [TopLogprob(7, -0.5)])], Finish.STOP, cached_tokens=0)]),
]


@given(cuts=st.lists(st.integers(1, 50), max_size=40))
def test_messages_cut_anywhere_arrive_whole_and_in_order(cuts: list[int]) -> None:
    data = b"".join(encode(m) for m in TO_ENGINE)
    decoder = to_engine_decoder()
    arrived: list[ToEngine] = []
    for cut in cuts:
        arrived += decoder.feed(data[:cut])
        data = data[cut:]
    arrived += decoder.feed(data)
    assert arrived == TO_ENGINE


def test_messages_of_the_engine_come_back_equal() -> None:
    decoder = from_engine_decoder()
    assert list(decoder.feed(b"".join(encode(m) for m in FROM_ENGINE))) == FROM_ENGINE


def test_a_frame_beyond_the_limit_is_an_error_before_it_is_read() -> None:
    with pytest.raises(FrameError, match="4294967295 bytes"):
        list(to_engine_decoder().feed(b"\xff\xff\xff\xff"))


def test_a_body_that_is_no_message_is_an_error() -> None:
    body = msgspec.msgpack.encode({"type": "dance"})
    with pytest.raises(FrameError, match="dance"):
        list(to_engine_decoder().feed(len(body).to_bytes(4, "big") + body))
