"""Decodes one JPEG XL file, in its own process with limited memory and time.

`python jxl_decoder.py BYTES SECONDS` reads the file from its standard input. It writes a line of JSON that
lists the parts that follow with their lengths, and then these parts.
"""

import json
import sys

KEPT_BOXES = {b"Exif", b"xml ", b"jumb", b"jhgm"}


def limit(memory: int, seconds: int) -> None:
    try:
        import resource
    except ImportError:  # Windows has no such limits
        return
    limits = {resource.RLIMIT_AS: memory, resource.RLIMIT_CPU: seconds, resource.RLIMIT_CORE: 0}
    for kind, most in limits.items():
        hard = resource.getrlimit(kind)[1]
        resource.setrlimit(kind, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def main() -> None:
    memory, seconds = map(int, sys.argv[1:])
    limit(memory, seconds)
    import pillow_jxl

    jpeg, info, pixels, icc, boxes = pillow_jxl.Decoder(num_threads=0)(sys.stdin.buffer.read())
    parts = [("jpeg" if jpeg else "pixels", bytes(pixels)), ("icc", bytes(icc or b""))]
    parts += [(box.box_type.decode("ascii"), bytes(box.data)) for box in boxes if box.box_type in KEPT_BOXES]
    head = {
        "width": info.width,
        "height": info.height,
        "channels": info.num_channels + info.has_alpha_channel,
        "parts": [(name, len(part)) for name, part in parts],
    }
    sys.stdout.buffer.write(json.dumps(head).encode() + b"\n")
    for _, part in parts:
        sys.stdout.buffer.write(part)


if __name__ == "__main__":
    main()
