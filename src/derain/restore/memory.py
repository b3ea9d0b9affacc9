"""How much memory there is, how large a tile fits, and whether an error means that memory ran out."""

from __future__ import annotations

import psutil
import torch

from derain.methods.network import RainNetwork

# On a CPU larger tiles are not faster, so a photograph never takes more than this: what SPANet, whose result
# changes with tiles, needs for 12 megapixels in one piece.
CPU_BUDGET = 9 << 28  # bytes: 2.25 GiB
SMALLEST_TILE = 64


def budget(device: torch.device) -> int:
    """Bytes that one forward pass may take for its intermediate values."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(0.8 * free)
    return min(CPU_BUDGET, int(psutil.virtual_memory().available) // 2)


def fitting_tile(network: RainNetwork, height: int, width: int, limit: int) -> int | None:
    """The largest side of a square tile whose forward pass stays within `limit` bytes, a multiple
    of 64; None if the whole picture does, in bands of rows where the network has them."""
    if network.band_bytes(height, width) <= limit:
        return None
    side = SMALLEST_TILE
    while network.activation_bytes(2 * side, 2 * side) <= limit:
        side *= 2
    step = side // 2
    while step >= SMALLEST_TILE:
        if network.activation_bytes(side + step, side + step) <= limit:
            side += step
        step //= 2
    return side // SMALLEST_TILE * SMALLEST_TILE


def ran_out(error: BaseException) -> bool:
    """Whether an exception says that memory ran out, on any device."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and (
        "can't allocate memory" in text
        or "out of memory" in text
        or "could not create a memory" in text
        # oneDNN's message when it cannot allocate its code or weights
        or "could not create a primitive" in text
    )
