"""What a result contains besides its pixels, in words."""

from __future__ import annotations

from derain.pictures import Picture
from derain.pictures.video_decoding import open_video
from derain.pictures.video_facts import VideoFacts

# Attributes of a `Picture` that may be None, in words.
WORDS = {
    "alpha": "transparency",
    "exif": "EXIF",
    "xmp": "XMP",
    "iptc": "IPTC",
    "icc": "colour profile",
    "dpi": "resolution",
}


def held_by_picture(picture: Picture) -> tuple[str, ...]:
    """What the file that `picture` was read from contained."""
    found = {
        "16 bits": picture.bits > 8,
        "grey": picture.pixels.shape[2] == 1,
        **{word: getattr(picture, name) is not None for name, word in WORDS.items()},
        "texts": bool(picture.texts),
    }
    return tuple(word for word, there in found.items() if there)


def held_by_clip(facts: VideoFacts) -> tuple[str, ...]:
    """What a clip contains. Raises `DerainError` if it cannot be opened."""
    with open_video(facts.path) as container:
        streams = container.streams
        found = {
            f"{facts.bits} bits": facts.bits > 8,
            "sound": bool(streams.audio),
            "subtitles": bool(streams.subtitles),
            "chapters": bool(container.chapters()),
            "transparency": facts.alpha,
        }
    return tuple(word for word, there in found.items() if there)
