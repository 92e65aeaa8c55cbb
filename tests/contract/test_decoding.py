"""What everybody does who decodes media."""

from collections.abc import Iterator

import pytest

from tests.fakes.decoders import FakeDecoders
from tests.fixtures.clips import animation, clip
from tests.fixtures.pictures import png
from worker.engine.config import TilingConfig
from worker.media.decoders import Decoders, Decoding
from worker.media.errors import MediaCode, MediaRefused, VideoCode
from worker.media.image import ImageLimits
from worker.media.segments import Segments
from worker.media.video_limits import VideoLimits
from worker.media.work import Cut, Frames, ImageWork, Pieces, Size, VideoWork

pytestmark = pytest.mark.contract

IMAGE = ImageLimits(1_000_000)
VIDEO = VideoLimits(max_pixels=1_000_000, max_duration_s=60, max_frames=1000, decode_s=30)
CUT = Cut(TilingConfig(1, 12, True), 112)


@pytest.fixture(scope="module", params=["process", "fake"])
def decoders(request: pytest.FixtureRequest) -> Iterator[Decoding]:
    made: Decoding = Decoders() if request.param == "process" else FakeDecoders()
    yield made
    made.close()


def test_image_has_its_size_and_its_tiles(decoders: Decoding) -> None:
    data = png(500, 200)
    assert decoders.ask(ImageWork(data, IMAGE)) == Size(500, 200)
    cut = decoders.ask(ImageWork(data, IMAGE, CUT))
    assert isinstance(cut, Pieces)
    (image,) = cut.images
    assert (image.tiles, len(image.pixels), len(image.digest)) == (11, 11 * 112 * 112 * 3, 32)
    assert cut == FakeDecoders().ask(ImageWork(data, IMAGE, CUT))


@pytest.mark.parametrize("data", [clip(), animation()], ids=["mp4", "gif"])
def test_video_has_as_many_pieces_as_frames_are_seen(decoders: Decoding, data: bytes) -> None:
    work = VideoWork(data, Segments(5, 0.0, 1.0), VIDEO)
    assert decoders.ask(work) == Frames(5)
    cut = decoders.ask(VideoWork(data, Segments(5, 0.0, 1.0), VIDEO, Cut(TilingConfig(1, 1, False), 112)))
    assert isinstance(cut, Pieces)
    assert [image.tiles for image in cut.images] == [1] * 5


def test_what_is_refused_has_its_code_and_its_reason(decoders: Decoding) -> None:
    with pytest.raises(MediaRefused, match="the 5 bytes are no image") as image:
        decoders.ask(ImageWork(b"hello", IMAGE))
    assert (image.value.media_code, image.value.code) == (MediaCode.INVALID_IMAGE, "invalid_image")
    with pytest.raises(MediaRefused, match="5 bytes are no video") as video:
        decoders.ask(VideoWork(b"hello", Segments(1), VIDEO))
    assert video.value.media_code is VideoCode.INVALID_VIDEO
    # `image_parse_error` and its sister are told apart by the kind of the medium.
    with pytest.raises(MediaRefused) as large:
        decoders.ask(ImageWork(png(2000, 1000), IMAGE))
    assert large.value.code == "image_too_large"
