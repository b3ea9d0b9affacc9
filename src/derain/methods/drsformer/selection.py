"""Top-k sparse attention (TKSA) of DRSformer: four softmaxes over the largest logits, blended.

Of each row of C logits the k_i largest survive, for k = C/2, 2C/3, 3C/4, 4C/5 (rounded down), each
selection has its own softmax A_i, and the result is A = sum_i scale_i A_i.

One sort serves all four: with s_1 >= ... >= s_C and Z_k = sum_{r<=k} exp(s_r - s_1), the entry of
rank r gets exp(s_r - s_1) * sum_{i: r <= k_i} scale_i / Z_{k_i}. Where equal logits lie across a
boundary, the published choice is whatever the library's top-k returns; such rows are done by it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from derain.nn.tracing import is_tracing


def kept(channels: int) -> tuple[int, int, int, int]:
    """How many logits of a row of C survive in the four selections."""
    return channels // 2, channels * 2 // 3, channels * 3 // 4, channels * 4 // 5


def blended_attention(logits: Tensor, scales: Tensor) -> Tensor:
    """The four sparse softmaxes, weighted and added.

    Args:
        logits: (..., C, C), C >= 2.
        scales: (4,).

    Returns:
        (..., C, C); entries that no selection holds are 0.
    """
    if is_tracing():  # a graph has no branch for ties
        return by_four_selections(logits, scales)
    ranked, order = logits.sort(-1, descending=True)
    blended = torch.zeros_like(logits).scatter(-1, order, _by_rank(ranked, scales))
    with torch.no_grad():
        tied = torch.stack([ranked[..., k - 1] == ranked[..., k] for k in kept(logits.shape[-1])]).any(0)
    if tied.any():
        blended = blended.index_put(tied.nonzero(as_tuple=True), by_four_selections(logits[tied], scales))
    return blended


def _by_rank(ranked: Tensor, scales: Tensor) -> Tensor:
    """Blended weights of rows in descending order."""
    powers = (ranked - ranked[..., :1]).exp()
    result = torch.zeros_like(powers)
    for k, scale in zip(kept(ranked.shape[-1]), scales, strict=True):
        chosen = powers[..., :k]
        result[..., :k] += chosen * (scale / chosen.sum(-1, keepdim=True))
    return result


def by_four_selections(logits: Tensor, scales: Tensor) -> Tensor:
    """The definition: (..., C) rows -> (..., C) blended weights, one top-k and one softmax each."""
    blended = torch.zeros_like(logits)
    for k, scale in zip(kept(logits.shape[-1]), scales, strict=True):
        values, chosen = logits.topk(k, dim=-1)
        blended = blended.scatter_add(-1, chosen, scale * values.softmax(-1))
    return blended
