"""Videos within limits: the frames that the reference would see, and each refusal by its code."""

import random
import struct
import tempfile
from io import BytesIO
from pathlib import Path

import av
import numpy as np
import pytest

from tests.fixtures.clips import STEP, animation, clip, grey_of, sound
from worker.media.errors import MediaCode, MediaRefused, VideoCode
from worker.media.segments import Segments, frame_indices
from worker.media.video import open_video
from worker.media.video_limits import VideoLimits

pytestmark = pytest.mark.unit

LIMITS = VideoLimits(max_pixels=100_000, max_duration_s=60, max_frames=1000, decode_s=30)

EIGHT = Segments(8)


def seen(data, segments=EIGHT, limits=LIMITS):
    """The frames that came out, by their greys."""
    video = open_video(data, segments, limits)
    return video.indices, [
        round((float(np.asarray(picture).mean()) - grey_of(0)) / STEP, 1) for picture in video.decode()
    ]


def refused(data, segments=EIGHT, limits=LIMITS):
    with pytest.raises(MediaRefused) as caught:
        list(open_video(data, segments, limits).decode())
    assert caught.value.param == "messages"
    return caught.value


def limits(**changes):
    values = {"max_pixels": 100_000, "max_duration_s": 60, "max_frames": 1000, "decode_s": 30} | changes
    return VideoLimits(**values)


def reference_indices(bound, fps, max_frame, num_segments):
    """After the model family's example code, with numpy's rounding."""
    start, end = bound or (-100000, 100000)
    first, last = max(0, round(start * fps)), min(round(end * fps), max_frame)
    size = float(last - first) / num_segments
    return [int(first + (size / 2) + np.round(size * k)) for k in range(num_segments)]


def test_frame_indices_equal_the_reference_for_many_videos():
    rng = random.Random(1)
    for _ in range(20_000):
        frames = rng.choice((rng.randint(1, 40), rng.randint(1, 20_000)))
        fps = rng.choice((1.0, 10.0, 24.0, 25.0, 30.0, 24000 / 1001, 30000 / 1001, 60.0, rng.uniform(0.2, 240)))
        count = rng.choice((1, 2, 3, 7, 8, 16, 32, 64))
        bound = None
        if rng.random() < 0.6:
            start = rng.uniform(0, (frames - 1) / fps) * rng.random()
            bound = (start, start + rng.uniform(0.01, 2 * frames / fps))
        segments = Segments(count) if bound is None else Segments(count, *bound)
        made = frame_indices(segments, frames, fps)
        assert made == sorted(made)
        assert 0 <= made[0] <= made[-1] < frames
        if bound is None or round(bound[1] * fps) >= min(round(bound[0] * fps), frames - 1):
            assert made == reference_indices(bound, fps, frames - 1, count), (frames, fps, count, bound)


def test_one_bound_leaves_the_other_to_the_video():
    assert frame_indices(Segments(4, start=1.0), 21, 10.0) == frame_indices(Segments(4, 1.0, 99.0), 21, 10.0)
    assert frame_indices(Segments(4, end=1.0), 21, 10.0) == frame_indices(Segments(4, 0.0, 1.0), 21, 10.0)


def test_start_behind_the_end_is_refused_with_the_numbers():
    with pytest.raises(MediaRefused, match=r"start = 2 lies behind the video's end: 20 frames at 10 per second") as it:
        frame_indices(Segments(4, start=2.0), 20, 10.0)
    assert it.value.code == "invalid_video_bounds"
    assert frame_indices(Segments(4, start=1.99), 20, 10.0) == [19, 19, 19, 19]


CLIPS = {
    "h264 with b frames in mp4": clip(),
    "mpeg4 in mp4": clip(codec="mpeg4"),
    "one key frame": clip(gop=600),
    "fragmented mp4": clip(movflags="frag_keyframe+empty_moov"),
    "index in front": clip(movflags="faststart"),
    "quicktime": clip(kind="mov"),
    "vp8 in webm": clip(codec="libvpx", kind="webm"),
    "vp9 in webm": clip(codec="libvpx-vp9", kind="webm"),
    "gif": animation(),
    "webp": animation(kind="WEBP"),
}


@pytest.mark.parametrize("segments", [Segments(1), Segments(8), Segments(30), Segments(5, 0.4, 1.6)], ids=str)
@pytest.mark.parametrize("kind", CLIPS)
def test_decoded_frames_are_those_of_the_reference_indices(kind, segments):
    bound = None if segments.start is None else (segments.start, segments.end)
    indices, frames = seen(CLIPS[kind], segments)
    assert indices == reference_indices(bound, 10.0, 19, segments.count)
    assert len(frames) == segments.count
    assert np.abs(np.array(frames) - indices).max() < 0.45, frames


def test_frames_of_a_long_video_are_found_from_their_key_frames():
    indices, _ = seen(clip(frames=300, gop=10, fps=30), Segments(3))
    assert indices == reference_indices(None, 30.0, 299, 3)
    pictures = open_video(clip(frames=300, gop=10, fps=30), Segments(3), LIMITS).decode()
    greys = np.array([float(np.asarray(picture).mean()) for picture in pictures])
    assert np.abs(greys - [grey_of(k) for k in indices]).max() < STEP / 2


def test_only_the_groups_of_the_wanted_frames_are_decoded():
    """Every other group is overwritten: what it holds cannot have been read. The one behind a wanted frame is fed, too:
    a decoder gives a frame only when it knows that none comes before it."""
    whole = clip(frames=300, gop=10, fps=30)
    data, groups = bytearray(whole), []
    with av.open(BytesIO(whole)) as container:
        for packet in container.demux(container.streams.video[0]):
            groups += [[]] if packet.is_keyframe else []
            groups[-1] += [(packet.pos, packet.size)] if packet.size else []
    wanted = {index // 10 for index in open_video(whole, Segments(3), LIMITS).indices}
    for k, group in enumerate(groups):
        for start, size in group if {k, k - 1}.isdisjoint(wanted) else ():
            data[start : start + size] = bytes(size)
    assert len(groups) == 30
    assert seen(bytes(data), Segments(3)) == seen(whole, Segments(3))
    assert refused(bytes(data), Segments(8)).code == "video_parse_error"


def test_still_picture_is_a_video_of_one_frame():
    assert seen(animation(frames=1), Segments(3)) == ([0, 0, 0], [0.0, 0.0, 0.0])


def test_delays_too_short_for_a_browser_count_as_tenths():
    assert open_video(animation(delay_ms=10), Segments(2, 0.0, 1.0), LIMITS).indices == [2, 7]


def turned(data, a, b, c, d):
    """The same file with another display matrix."""
    place = data.index(b"tkhd") + 4 + 4 + 20 + 16
    matrix = struct.pack(">9i", a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)
    return data[:place] + matrix + data[place + 36 :]


def test_video_held_upright_is_turned_as_its_matrix_says():
    """The top half of the stored frames is white: turned clockwise it is the right one."""
    pixels = np.zeros((48, 64, 3), dtype=np.uint8)
    pixels[:24] = 255
    data = still(pixels)
    (upright,) = open_video(turned(data, 0, 1, -1, 0), Segments(1), LIMITS).decode()
    assert upright.size == (48, 64)
    assert np.asarray(upright)[:, 36].mean() > 200 > 50 > np.asarray(upright)[:, 12].mean()
    (upside_down,) = open_video(turned(data, -1, 0, 0, -1), Segments(1), LIMITS).decode()
    assert np.asarray(upside_down)[36].mean() > 200
    (other,) = open_video(turned(data, 0, -1, 1, 0), Segments(1), LIMITS).decode()
    assert np.asarray(other)[:, 12].mean() > 200


def still(pixels):
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "still.mp4"
        with av.open(str(file), "w") as container:
            stream = container.add_stream("libx264", rate=10)
            stream.height, stream.width, stream.pix_fmt = pixels.shape[0], pixels.shape[1], "yuv420p"
            for _ in range(3):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            container.mux(stream.encode())
        return file.read_bytes()


@pytest.mark.parametrize("kind", CLIPS)
def test_video_over_a_limit_is_refused_with_the_limit(kind):
    data = CLIPS[kind]
    many = refused(data, limits=limits(max_frames=19))
    assert (many.code, "more than 19 frames" in str(many)) == ("video_too_large", True)
    large = refused(data, limits=limits(max_pixels=64 * 48 - 1))
    assert (large.code, "64 × 48" in str(large)) == ("video_too_large", True)
    if kind not in ("gif", "webp"):
        long = refused(data, limits=limits(max_duration_s=1))
        assert (long.code, "longer than 1 s" in str(long)) == ("video_too_large", True)


def test_animation_that_lasts_too_long_is_refused_when_seconds_matter():
    assert refused(animation(), Segments(2, start=0.5), limits(max_duration_s=1)).code == "video_too_large"


@pytest.mark.parametrize("kind", CLIPS)
def test_truncated_video_is_refused_or_gives_every_frame_that_it_counts(kind):
    data = CLIPS[kind]
    for part in (0.02, 0.2, 0.5, 0.8, 0.97):
        cut = data[: int(len(data) * part)]
        try:
            video = open_video(cut, Segments(4), LIMITS)
            assert len(list(video.decode())) == 4
        except MediaRefused as exc:
            assert exc.code in ("video_parse_error", "invalid_video"), exc.code


def test_truncated_mp4_is_refused_with_what_is_missing():
    fault = refused(CLIPS["index in front"][:-100])
    assert (fault.code, "ends 100 bytes after the file" in str(fault)) == ("video_parse_error", True)


@pytest.mark.parametrize("kind", CLIPS)
def test_damaged_video_is_refused_or_decoded_but_never_breaks(kind):
    rng = random.Random(kind)
    for _ in range(40):
        data = bytearray(CLIPS[kind])
        for _ in range(rng.choice((1, 5, 50))):
            data[rng.randrange(len(data))] = rng.randrange(256)
        try:
            video = open_video(bytes(data), rng.choice((Segments(4), Segments(4, 0.1, 1.0))), LIMITS)
            assert len(list(video.decode())) <= 4
        except MediaRefused as exc:
            assert exc.code in {code.value for code in VideoCode}


def test_file_without_pictures_is_refused_with_what_it_has():
    fault = refused(sound())
    assert (fault.code, "no video stream; it has: audio" in str(fault)) == ("invalid_video", True)


def test_video_of_no_frames_is_refused():
    empty = clip(frames=4, movflags="empty_moov+frag_keyframe")
    assert refused(empty[: empty.index(b"moof") - 4]).code == "invalid_video"


def test_frame_rate_that_makes_no_sense_is_refused_when_seconds_matter():
    fast = clip(fps=5000, codec="mpeg4")
    assert seen(fast, Segments(2))[0] == [4, 14]
    fault = refused(fast, Segments(2, start=0.0))
    assert (fault.code, "5000" in str(fault)) == ("invalid_video", True)


def test_promise_of_more_samples_than_bytes_is_refused():
    data = CLIPS["mpeg4 in mp4"]
    place = data.index(b"stsz") + 8
    for each, count in ((1, 2**31), (0, 2**31)):
        greedy = data[:place] + struct.pack(">II", each, count) + data[place + 8 :]
        fault = refused(greedy)
        assert (fault.code, "2147483648 samples" in str(fault)) == ("video_parse_error", True)


def test_box_of_an_impossible_size_is_refused():
    assert refused(struct.pack(">I4sQ", 1, b"ftyp", 3) + b"\0" * 50).code == "video_parse_error"
    assert refused(struct.pack(">I4s", 4, b"ftyp") + b"\0" * 50).code == "video_parse_error"


@pytest.mark.parametrize(
    ("data", "code", "word"),
    [
        (b"hello, world", "invalid_video", "12 bytes"),
        (b"\0" * 100, "invalid_video", "100 bytes"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 20, "unsupported_video_media_type", "PNG"),
        (b"#EXTM3U\nhttp://10.0.0.1/x", "unsupported_video_media_type", "HLS"),
        (b"RIFF\0\0\0\0AVI LIST", "unsupported_video_media_type", "RIFF AVI"),
        (b"\0\0\0\x1cftypavif" + b"\0" * 20, "unsupported_video_media_type", "avif"),
        (b"OggS" + b"\0" * 20, "unsupported_video_media_type", "Ogg"),
    ],
)
def test_other_bytes_are_refused_by_their_kind(data, code, word):
    fault = refused(data)
    assert (fault.code, word in str(fault)) == (code, True)


def test_every_fault_of_fetching_has_its_video_code():
    fetching = {
        MediaCode.INVALID_URL, MediaCode.EMPTY_FILE, MediaCode.FILE_TOO_LARGE, MediaCode.DOWNLOAD_FAILED,
        MediaCode.FILE_NOT_FOUND, MediaCode.UNSUPPORTED_TYPE,
    }  # fmt: skip
    for code in fetching:
        assert MediaRefused(code, "x").of_video().code == code.value.replace("image", "video")
