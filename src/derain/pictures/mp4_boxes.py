"""What FFmpeg does not write into MP4 and QuickTime files: the mark of 360-degree video.

Boxes are those of ISO/IEC 14496-12; the mark is that of Google's Spherical Video RFC, first version.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

MARK = bytes.fromhex("ffcc8263f8554a938814587a02521fdd")
EQUIRECTANGULAR = (
    b'<?xml version="1.0"?><rdf:SphericalVideo xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" '
    b'xmlns:GSpherical="http://ns.google.com/videos/1.0/spherical/">'
    b"<GSpherical:Spherical>true</GSpherical:Spherical><GSpherical:Stitched>true</GSpherical:Stitched>"
    b"<GSpherical:StitchingSoftware>derain</GSpherical:StitchingSoftware>"
    b"<GSpherical:ProjectionType>equirectangular</GSpherical:ProjectionType></rdf:SphericalVideo>"
)


def mark_spherical(path: Path) -> None:
    """Marks the first video track of an MP4 or QuickTime file as equirectangular.

    Its index must be the last box, where FFmpeg puts it, so that nothing else moves.
    """
    with path.open("r+b") as file:
        start, index = _last_box(file)
        assert index[4:8] == b"moov"
        file.seek(start)
        file.write(_marked(index))


def _last_box(file: BinaryIO) -> tuple[int, bytes]:
    """The position of a file's last box, and its bytes."""
    at, end = 0, file.seek(0, 2)
    while True:
        file.seek(at)
        size, _, large = struct.unpack(">I4sQ", file.read(16).ljust(16, b"\0"))
        size = large if size == 1 else size
        if size < 8 or at + size >= end:
            file.seek(at)
            return at, file.read()
        at += size


def _marked(index: bytes) -> bytes:
    box = struct.pack(">I4s", 8 + len(MARK) + len(EQUIRECTANGULAR), b"uuid") + MARK + EQUIRECTANGULAR
    parts, done = [], False
    for kind, content in _boxes(index[8:]):
        if kind == b"trak" and not done and b"vide" in content[:1000]:
            content, done = content + box, True
        parts.append(struct.pack(">I4s", 8 + len(content), kind) + content)
    inside = b"".join(parts)
    return struct.pack(">I4s", 8 + len(inside), b"moov") + inside


def _boxes(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 0
    while at + 8 <= len(content):
        size, kind = struct.unpack_from(">I4s", content, at)
        yield kind, content[at + 8 : at + size]
        at += max(8, size)
