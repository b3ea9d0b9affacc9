"""The number formats that networks compute in, by name."""

from __future__ import annotations

# Besides these, "auto" leaves the choice to the code that computes.
PRECISIONS = ("float32", "bfloat16", "float16")
_SHORT = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


def precision_name(text: str) -> str:
    """`text` with a short form spelled out, "bf16" as "bfloat16"; anything else as it is."""
    return _SHORT.get(text, text)
