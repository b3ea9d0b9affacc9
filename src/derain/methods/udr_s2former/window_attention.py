"""The two attentions of the decoder, both in windows of w x w pixels (8 x 8 as published).

Sampling attention: the queries lie in the window; keys and values are fetched by bilinear sampling
from a rectangle that each head moves and stretches anywhere in the picture. Local attention: plain
window attention whose logits are boosted where the uncertainty ranking says so.

Form, not value, differs from the published code: the rectangle's sides are worked out per axis and
the four neighbours of each sample are summed by one `embedding_bag` that writes keys and values in
window order; local attention runs over a few windows at a time.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from derain.methods.udr_s2former.layers import linear, pieces
from derain.nn.tracing import is_tracing


class SamplingAttention(nn.Module):
    """Sparse sampling attention on (B, H, W, C)."""

    relative_position_bias_table: nn.Parameter
    _index: Tensor

    def __init__(self, dim: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads, self.window = heads, window
        _add_position_table(self, heads, window)
        self.sampling_biases = nn.Sequential(
            nn.AvgPool2d(window), nn.LeakyReLU(), nn.Conv2d(dim, 2 * heads, 1)
        )
        self.sampling_scales = nn.Sequential(
            nn.AvgPool2d(window), nn.LeakyReLU(), nn.Conv2d(dim, 2 * heads, 1)
        )
        self.qkv = nn.Conv2d(dim, 3 * dim, 1)
        self.proj = nn.Conv2d(dim, dim, 1)

    def forward(self, t: Tensor, constraint: Tensor) -> Tensor:
        """
        Args:
            t: (B, H, W, C).
            constraint: (B, C, H, W), the factors of `ranking.constraint`.
        """
        b, h, w, c = t.shape
        n, d = self.heads, c // self.heads
        weight, bias = self.qkv.weight.flatten(1), self.qkv.bias
        assert bias is not None
        q = F.linear(t, weight[:c], bias[:c])
        # Key and value of one head side by side, so that one look-up fetches both.
        by_head = weight[c:].view(2, n, d, c).transpose(0, 1).reshape(2 * c, c)
        kv = F.linear(t, by_head, bias[c:].view(2, n, d).transpose(0, 1).flatten())

        index, factors = self._neighbours(t.permute(0, 3, 1, 2), constraint)
        rows = kv.view(b * h * w * n, 2 * d)
        sampled = _weighted_rows(rows, index, factors.to(kv.dtype))
        k, v = sampled.view(-1, n, self.window**2, 2, d).unbind(3)
        position = _position_bias(self.relative_position_bias_table, self._index, self.window)
        q = _to_windows(q.unsqueeze(3), n, self.window)[0]
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=position.to(q.dtype).unsqueeze(0))
        return linear(_from_windows(out, h, w, self.window), self.proj)

    def _neighbours(self, t: Tensor, constraint: Tensor) -> tuple[Tensor, Tensor]:
        """The four pixels around each sampling position, as rows of (B, H, W, heads), and their weights.

        Both (B * windows * heads * window^2, 4); a neighbour outside the picture has weight 0.
        """
        b, _, h, w = t.shape
        n = self.heads
        x, y = self.coordinates(t, constraint)
        left_right, factor_x = _two_neighbours(x, w)
        above_below, factor_y = _two_neighbours(y, h)
        sample = torch.arange(b, device=t.device).view(b, 1, 1, 1, 1, 1)
        head = torch.arange(n, device=t.device).view(n, 1, 1)
        row = (sample * h + above_below) * (w * n) + head  # (B, H/w, W/w, heads, w, 2)
        index = row[..., :, None, :, None] + (left_right * n)[..., None, :, None, :]
        factors = factor_y[..., :, None, :, None] * factor_x[..., None, :, None, :]
        return index.view(-1, 4), factors.reshape(-1, 4)

    def coordinates(self, t: Tensor, constraint: Tensor) -> tuple[Tensor, Tensor]:
        """Where each head of each window looks: x of its columns and y of its rows.

        Both (B, H/w, W/w, heads, w), normalised so that the picture spans -1 (centre of the first
        pixel) to 1 (centre of the last); at least float32.
        """
        b, _, h, w = t.shape
        pooled = self.sampling_biases[:2](t * constraint)
        dtype = torch.promote_types(t.dtype, torch.float32)
        shape = (b, self.heads, 2, h // self.window, w // self.window)
        shift_x, shift_y = self.sampling_biases[2](pooled).to(dtype).view(shape).unbind(2)
        scale_x, scale_y = self.sampling_scales[2](pooled).to(dtype).view(shape).unbind(2)

        def along(size: int, vertical: bool, shift: Tensor, scale: Tensor) -> Tensor:
            centres, offsets = _axis(size, self.window, vertical, t.device)
            centres = centres.to(dtype).view((-1, 1, 1) if vertical else (1, -1, 1))
            offsets = offsets.to(dtype)
            shift = shift.unsqueeze(-1) / (size // self.window)
            # The published order of additions: another one moves the samples by rounding.
            line = (centres + offsets) + (offsets * scale.unsqueeze(-1) + shift)
            return line.permute(0, 2, 3, 1, 4)

        return along(w, False, shift_x, scale_x), along(h, True, shift_y, scale_y)


class LocalAttention(nn.Module):
    """Local reconstruction: window attention on (B, H, W, C), steered by uncertainty."""

    relative_position_bias_table: nn.Parameter
    _index: Tensor

    def __init__(self, dim: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads, self.window = heads, window
        _add_position_table(self, heads, window)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, t: Tensor, modulation: Tensor) -> Tensor:
        """
        Args:
            t: (B, H, W, C).
            modulation: (B * windows, w^2, w^2), the factors of `ranking.modulation`.
        """
        b, h, w, c = t.shape
        q, k, v = _to_windows(self.qkv(t).view(b, h, w, 3, c), self.heads, self.window)
        q = q * (c // self.heads) ** -0.5
        position = _position_bias(self.relative_position_bias_table, self._index, self.window).to(q.dtype)
        out = []
        for queries, keys, values, factors in pieces(max(1, 64 // self.heads), q, k, v, modulation):
            logits = _steered(position, queries @ keys.transpose(2, 3), factors.unsqueeze(1))
            out.append(torch.softmax(logits, -1) @ values)
        mixed: Tensor = self.proj(_from_windows(torch.cat(out), h, w, self.window))
        return mixed


def _steered(position: Tensor, products: Tensor, factors: Tensor) -> Tensor:
    """position + products * factors."""
    if is_tracing():  # with a plus OpenVINO takes this for attention that is scaled by one number
        return position - products * -factors
    return torch.addcmul(position, products, factors)


def _weighted_rows(rows: Tensor, index: Tensor, factors: Tensor) -> Tensor:
    """Sums of rows (R, D), each picked by index (N, 4) and scaled by factors (N, 4): (N, D)."""
    if is_tracing():  # graph formats have no such operation
        return (rows[index] * factors.unsqueeze(-1)).sum(1)
    return F.embedding_bag(index, rows, per_sample_weights=factors, mode="sum")


def _add_position_table(module: nn.Module, heads: int, window: int) -> None:
    """The learnt bias of every displacement within a window, and the published index buffer.

    The index is a constant of the window's size. Published files hold it, so it has a place in the
    state dict; the forward pass reads its own copy, which no file can send out of range.
    """
    table = nn.Parameter(torch.empty((2 * window - 1) ** 2, heads))
    nn.init.trunc_normal_(table, std=0.02)
    module.register_parameter("relative_position_bias_table", table)
    index = relative_position_index(window)
    module.register_buffer("relative_position_index", index)
    module.register_buffer("_index", index.flatten().clone(), persistent=False)


def relative_position_index(window: int) -> Tensor:
    """(w^2, w^2) int64: the row of the table for query position a and key position b, row-major."""
    y, x = (a.flatten() for a in torch.meshgrid(*2 * (torch.arange(window),), indexing="ij"))
    return (y[:, None] - y + window - 1) * (2 * window - 1) + (x[:, None] - x + window - 1)


def _position_bias(table: Tensor, index: Tensor, window: int) -> Tensor:
    """(heads, w^2, w^2) from the table (displacements, heads) and the flat index."""
    return table.index_select(0, index).view(window**2, window**2, -1).permute(2, 0, 1).contiguous()


def _axis(size: int, window: int, vertical: bool, device: torch.device) -> tuple[Tensor, Tensor]:
    """Normalised float32 centres of the windows along an axis of `size` pixels, and the offsets of a
    window's pixels from its centre.

    The centres are means of whole windows of the coordinate picture, as in the published code: the
    rounding of a mean along one axis differs by 1e-5 of a pixel, which is visible in the result.
    """
    picture = torch.linspace(-1, 1, size, device=device).expand(1, 1, window, size)
    centres = F.avg_pool2d(picture.transpose(2, 3) if vertical else picture, window).flatten()
    offsets = torch.arange(window, device=device) * 2 / (size - 1)
    return centres, offsets - offsets.mean()


def _two_neighbours(coordinate: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Normalised positions (...) -> indices and linear weights of the two nearest pixels, (..., 2)."""
    position = (coordinate + 1) * ((size - 1) / 2)
    low = position.floor()
    ends = torch.stack([low, low + 1], -1)
    factors = torch.stack([low + 1 - position, position - low], -1)
    inside = (ends >= 0) & (ends <= size - 1)
    return ends.long().clamp(0, size - 1), factors * inside


def _to_windows(x: Tensor, heads: int, window: int) -> Tensor:
    """(B, H, W, parts, heads * D) -> (parts, B * windows, heads, window^2, D)."""
    b, h, w, parts, c = x.shape
    x = x.view(b, h // window, window, w // window, window, parts, heads, c // heads)
    return x.permute(5, 0, 1, 3, 6, 2, 4, 7).reshape(parts, -1, heads, window**2, c // heads)


def _from_windows(x: Tensor, h: int, w: int, window: int) -> Tensor:
    """(B * windows, heads, window^2, D) -> (B, H, W, heads * D)."""
    _, heads, _, d = x.shape
    x = x.reshape(-1, h // window, w // window, heads, window, window, d)
    return x.permute(0, 1, 4, 2, 5, 3, 6).reshape(-1, h, w, heads * d)
