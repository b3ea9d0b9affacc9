"""Photoshop's image resources (`8BIM`, number, name, length, content), as JPEG and TIFF files hold them."""

from __future__ import annotations

import struct
from collections.abc import Iterator

IPTC_RESOURCE = 0x0404
# Of Photoshop: resolution, two thumbnails, IPTC and its digest, profile, EXIF in two parts, XMP.
CARRIED_RESOURCES = {0x03ED, 0x0409, 0x040C, IPTC_RESOURCE, 0x0425, 0x040F, 0x0422, 0x0423, 0x0424}
PATHS = range(0x07D0, 0x0BB7)


def iptc_of_photoshop(resources: bytes) -> bytes | None:
    """The IPTC records among Photoshop's image resources."""
    return next((body for number, body in _resources(resources) if number == IPTC_RESOURCE), None)


def other_resources(resources: bytes) -> str:
    """What else Photoshop's image resources contain, in words; "" if everything is carried elsewhere."""
    numbers = {number for number, body in _resources(resources) if body} - CARRIED_RESOURCES
    if numbers & set(PATHS):
        return "its clipping paths"
    return "further image resources of Photoshop" if numbers else ""


def _resources(resources: bytes) -> Iterator[tuple[int, bytes]]:
    """(number, content) of each resource, up to the first broken one."""
    at = 0
    while resources[at : at + 4] == b"8BIM" and at + 12 <= len(resources):
        (number,) = struct.unpack_from(">H", resources, at + 4)
        at += 6 + (resources[at + 6] + 2) // 2 * 2
        if at + 4 > len(resources):
            return
        (length,) = struct.unpack_from(">I", resources, at)
        yield number, resources[at + 4 : at + 4 + length]
        at += 4 + length + length % 2


def photoshop_of_iptc(iptc: bytes) -> bytes:
    """IPTC records as the only image resource."""
    resource = struct.pack(">4sHHI", b"8BIM", IPTC_RESOURCE, 0, len(iptc)) + iptc
    return resource + bytes(len(resource) % 2)
