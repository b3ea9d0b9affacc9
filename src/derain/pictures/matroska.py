"""What PyAV has no setting for in Matroska and WebM: the mark of 360-degree video, and HDR10 data.

FFmpeg writes both for a stream with such side data, which PyAV copies from a template. So a template is made:
the head of a file with a track like the new one and these elements in it. Elements are those of RFC 9559.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator

import av
from av.container import OutputContainer
from av.video.stream import VideoStream

from derain.pictures.video_encoding import CODECS, MATROSKA, Encoding, configure
from derain.pictures.video_facts import VideoFacts

SEGMENT, TRACKS, TRACK, VIDEO = "18538067", "1654ae6b", "ae", "e0"
NO_FRAMES = "1f43b675", b"\xe7\x81\0"  # a cluster that begins at 0, before which tracks are looked for
COLOUR, MOST_LIGHT, MOST_MEAN_LIGHT, MASTERING = "55b0", "55bc", "55bd", "55d0"
RED_X = 0x55D1  # followed by green, blue, white, and the greatest and least light of the display
PROJECTION, PROJECTION_TYPE, EQUIRECTANGULAR = "7670", "7671", b"\x01"


def marks(facts: VideoFacts, encoding: Encoding) -> bytes:
    """The elements that a new track of a Matroska or WebM file needs and a plain one would not have.

    Empty where there are none, and for other containers.
    """
    found = b""
    if encoding.container not in MATROSKA:
        return found
    if facts.spherical:
        found += _element(PROJECTION, _element(PROJECTION_TYPE, EQUIRECTANGULAR))
    if encoding.codec not in ("h264", "h265"):  # their streams hold HDR10 data themselves
        light = b""
        if facts.light_levels is not None:
            pixel, mean = facts.light_levels
            light += _element(MOST_LIGHT, struct.pack(">I", pixel))
            light += _element(MOST_MEAN_LIGHT, struct.pack(">I", mean))
        if facts.mastering is not None:
            *points, least, most = map(float, facts.mastering)
            numbers = [*points, most, least]
            parts = (_element(f"{RED_X + at:x}", struct.pack(">d", n)) for at, n in enumerate(numbers))
            light += _element(MASTERING, b"".join(parts))
        found += _element(COLOUR, light) if light else b""
    return found


def add_marked_stream(output: OutputContainer, facts: VideoFacts, encoding: Encoding) -> VideoStream:
    """A stream for encoded frames in a Matroska or WebM file, with its `marks`."""
    content = io.BytesIO()
    with av.open(content, "w", format="matroska") as trial:
        plain = trial.add_stream(CODECS[encoding.codec][0], rate=facts.rate)
        assert isinstance(plain, VideoStream)
        configure(plain.codec_context, facts, encoding)
        trial.start_encoding()
        head = plain.codec_context.extradata
    with av.open(io.BytesIO(_template(content.getvalue(), marks(facts, encoding)))) as template:
        stream = output.add_stream_from_template(template.streams.video[0], opaque=True)
    context = stream.codec_context
    context.extradata = head  # as the encoder returned it; in the template it is rewritten
    context.framerate = facts.rate
    context.color_range, context.colorspace = encoding.colour.range, encoding.colour.matrix
    context.color_primaries, context.color_trc = encoding.colour.primaries, encoding.colour.transfer
    return stream


def _template(content: bytes, elements: bytes) -> bytes:
    """A file of one track, reduced to that track, with the elements first in its video settings."""
    parts = []
    for kind, body in _elements(content):
        if kind == SEGMENT:
            tracks = next(inner for name, inner in _elements(body) if name == TRACKS)
            body = _element(TRACKS, _with(tracks, (TRACK, VIDEO), elements)) + _element(*NO_FRAMES)
        parts.append(_element(kind, body))
    return b"".join(parts)


def _with(content: bytes, path: tuple[str, ...], elements: bytes) -> bytes:
    """Content with elements inserted at the start of the element at the end of a path."""
    if not path:
        return elements + content
    return b"".join(
        _element(kind, _with(body, path[1:], elements) if kind == path[0] else body)
        for kind, body in _elements(content)
    )


def _element(kind: str, body: bytes) -> bytes:
    return bytes.fromhex(kind) + (1 << 56 | len(body)).to_bytes(8, "big") + body


def _elements(content: bytes) -> Iterator[tuple[str, bytes]]:
    """(kind, content) of the elements, which all have a known size."""
    at = 0
    while at < len(content):
        length = 9 - content[at].bit_length()
        kind, at = content[at : at + length].hex(), at + length
        length = 9 - content[at].bit_length()
        size = int.from_bytes(content[at : at + length], "big") & ((1 << 7 * length) - 1)
        at += length
        yield kind, content[at : at + size]
        at += size
