"""How much of a network's change is applied."""

from __future__ import annotations

MAX_STRENGTH = 1.5  # times the change: 1 is the network's result, and above it the change is exaggerated
