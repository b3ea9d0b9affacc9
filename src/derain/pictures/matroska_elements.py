"""Whether Matroska or WebM is whole: FFmpeg leaves out what it cannot follow, and does not report it.

Elements are those of RFC 8794 and RFC 9559.
"""

from __future__ import annotations

from pathlib import Path

MATROSKA = "matroska,webm"  # what FFmpeg calls both when it reads them
HEADER, SEGMENT, CLUSTER = "1a45dfa3", "18538067", "1f43b675"
BLOCK = 4096  # bytes of a file read at once; elements are mostly longer, and passed over


class Elements:
    """Follows the elements of a stream from its start, as its bytes arrive; nothing is kept.

    Segments and clusters are entered, all other elements passed over. What comes after a segment that states
    its size does not count.

    Attributes:
        broken: whether there was something that is no element.
        position: the number of bytes that arrived or were passed over.
    """

    def __init__(self) -> None:
        self.broken = False
        self.position = 0
        self._next = 0  # where the next element begins
        self._end: int | None = None  # of the segment, if it states its size
        self._head = b""  # what arrived of the kind and size of an element

    @property
    def cut(self) -> bool:
        """Whether the stream is incomplete if nothing more arrives."""
        return bool(self._head) or self.position < max(self._next, self._end or 0)

    def add(self, content: bytes) -> None:
        """Follows the next bytes of the stream."""
        start = self.position
        self.position += len(content)
        at = self._next - start
        while not self.broken and at < len(content) and (self._end is None or self._next < self._end):
            self._head += content[at : at + 1]
            self._next += 1
            self._follow()
            at = self._next - start

    def pass_over(self, length: int) -> int:
        """Skips to the next element, which `add` need not get, or to the end of `length` bytes; returns where
        that is."""
        self.position = min(max(self._next, self.position), length)
        return self.position

    def _follow(self) -> None:
        """Finds where the next element begins, once the kind and size of one are complete."""
        head = self._head
        size_at = 9 - head[0].bit_length()
        length = size_at + (9 - head[size_at].bit_length() if len(head) > size_at else 1)
        kind = head[:size_at].hex()
        is_first = self._next == len(head)
        self.broken = (
            size_at > 4 or length > size_at + 8 or (is_first and not HEADER.startswith(head[:4].hex()))
        )
        if self.broken or len(head) < length:
            return
        unknown = (1 << 7 * (length - size_at)) - 1
        size = int.from_bytes(head[size_at:], "big") & unknown
        self._head = b""
        if kind == SEGMENT and size != unknown:
            self._end = self._next + size
        if kind not in (SEGMENT, CLUSTER):
            self.broken = size == unknown
            self._next += size


def is_whole(path: Path) -> bool:
    """Whether all elements of a Matroska or WebM file can be followed to its end."""
    elements, length = Elements(), path.stat().st_size
    with path.open("rb") as file:
        while not elements.broken and (content := file.read(BLOCK)):
            elements.add(content)
            file.seek(elements.pass_over(length))
    return not elements.broken and not elements.cut
