"""The two attentions of the decoder, both in windows of w x w pixels (8 x 8 as published).

Sampling attention: the queries lie in the window; keys and values are fetched by bilinear sampling
from a rectangle that each head moves and stretches anywhere in the picture. Local attention: plain
window attention whose logits are boosted where the uncertainty ranking says so.

One thing differs from the published code in form, not in value: the rectangle's sides are computed per
axis.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from derain.methods.udr_s2former.ranking import constraint, modulation
from derain.nn.tracing import is_tracing


class WindowAttention(nn.Module):
    """What both kinds of attention share: a trained bias for every displacement within a window.

    The published index buffer is a constant of the window's size. Published files hold it, so it has a place
    in the state dict; the forward pass reads its own copy, which no file can send out of range.
    """

    _index: Tensor

    def __init__(self, heads: int, window: int) -> None:
        super().__init__()
        self.heads, self.window = heads, window
        self.relative_position_bias_table = nn.Parameter(torch.empty((2 * window - 1) ** 2, heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        index = relative_position_index(window)
        self.register_buffer("relative_position_index", index)
        self.register_buffer("_index", index.flatten().clone(), persistent=False)

    def position_bias(self) -> Tensor:
        """(heads, w^2, w^2) from the table (displacements, heads)."""
        picked = self.relative_position_bias_table.index_select(0, self._index)
        return picked.view(self.window**2, self.window**2, -1).permute(2, 0, 1).contiguous()


def relative_position_index(window: int) -> Tensor:
    """(w^2, w^2) int64: the row of the table for query position a and key position b, row-major."""
    y, x = (a.flatten() for a in torch.meshgrid(*2 * (torch.arange(window),), indexing="ij"))
    return (y[:, None] - y + window - 1) * (2 * window - 1) + (x[:, None] - x + window - 1)


class SamplingAttention(WindowAttention):
    """Sparse sampling attention on (B, H, W, C)."""

    def __init__(self, dim: int, heads: int, window: int) -> None:
        super().__init__(heads, window)
        self.sampling_biases = nn.Sequential(
            nn.AvgPool2d(window), nn.LeakyReLU(), nn.Conv2d(dim, 2 * heads, 1)
        )
        self.sampling_scales = nn.Sequential(
            nn.AvgPool2d(window), nn.LeakyReLU(), nn.Conv2d(dim, 2 * heads, 1)
        )
        self.qkv = nn.Conv2d(dim, 3 * dim, 1)
        self.proj = nn.Conv2d(dim, dim, 1)

    def forward(self, t: Tensor, uncertainty: Tensor) -> Tensor:
        """
        Args:
            t: (B, H, W, C).
            uncertainty: (B, C, H, W), the level's uncertainty features.
        """
        b, h, w, c = t.shape
        t = t.permute(0, 3, 1, 2)
        grid = self.grid(t, uncertainty)
        q, k, v = self.qkv(t).chunk(3, 1)
        k, v = (
            F.grid_sample(x.reshape(b * self.heads, -1, h, w), grid, align_corners=True).view(b, c, h, w)
            for x in (k, v)
        )
        q, k, v = (to_windows(x.permute(0, 2, 3, 1), self.heads, self.window) for x in (q, k, v))
        logits = q @ k.transpose(2, 3) * (c // self.heads) ** -0.5 + self.position_bias()
        mixed = from_windows(torch.softmax(logits, -1) @ v, h, w, self.window)
        out: Tensor = self.proj(mixed.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return out

    def grid(self, t: Tensor, uncertainty: Tensor) -> Tensor:
        """Where each head looks for the features t (B, C, H, W): (B * heads, H, W, 2), x and y, so that
        the picture spans -1 (centre of the first pixel) to 1 (centre of the last)."""
        b, _, h, w = t.shape
        steered = t * constraint(uncertainty)
        x, y = self.coordinates(self.sampling_biases(steered), self.sampling_scales(steered), h, w)
        n, s = self.heads, self.window
        x = x[..., None, :].expand(b, n, h // s, w // s, s, s)
        y = y[..., :, None].expand(b, n, h // s, w // s, s, s)
        return torch.stack([x, y], -1).transpose(3, 4).reshape(b * n, h, w, 2)

    def coordinates(self, shifts: Tensor, scales: Tensor, h: int, w: int) -> tuple[Tensor, Tensor]:
        """Of each head and window: x of its columns and y of its rows.

        Args:
            shifts, scales: (B, 2 heads, H/w, W/w), x and y of each head in turn.

        Returns:
            Both (B, heads, H/w, W/w, w), normalised as in `grid`; at least float32.
        """
        dtype = torch.promote_types(shifts.dtype, torch.float32)
        parts = (shifts.shape[0], self.heads, 2, h // self.window, w // self.window)
        shift_x, shift_y = shifts.to(dtype).reshape(parts).unbind(2)
        scale_x, scale_y = scales.to(dtype).reshape(parts).unbind(2)

        def along(size: int, vertical: bool, shift: Tensor, scale: Tensor) -> Tensor:
            centres, offsets = _axis(size, self.window, vertical, shift.device)
            centres = centres.to(dtype).view((-1, 1, 1) if vertical else (1, -1, 1))
            offsets = offsets.to(dtype)
            shift = shift.unsqueeze(-1) / (size // self.window)
            # The published order of additions: another one moves the samples by rounding.
            return (centres + offsets) + (offsets * scale.unsqueeze(-1) + shift)

        return along(w, False, shift_x, scale_x), along(h, True, shift_y, scale_y)


class LocalAttention(WindowAttention):
    """Local reconstruction: window attention on (B, H, W, C), steered by uncertainty."""

    def __init__(self, dim: int, heads: int, window: int) -> None:
        super().__init__(heads, window)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, t: Tensor, uncertainty: Tensor) -> Tensor:
        """
        Args:
            t: (B, H, W, C).
            uncertainty: (B, C, H, W), the level's uncertainty features.
        """
        _, h, w, c = t.shape
        q, k, v = (to_windows(x, self.heads, self.window) for x in self.qkv(t).chunk(3, -1))
        products = q @ k.transpose(2, 3) * (c // self.heads) ** -0.5
        factors = modulation(uncertainty, self.window).unsqueeze(1)
        if is_tracing():  # with a plus, OpenVINO would mistake this for attention scaled by one number
            logits = self.position_bias() - products * -factors
        else:
            logits = products * factors + self.position_bias()
        mixed = from_windows(torch.softmax(logits, -1) @ v, h, w, self.window)
        out: Tensor = self.proj(mixed)
        return out


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


def to_windows(x: Tensor, heads: int, window: int) -> Tensor:
    """(B, H, W, heads * D) -> (B * windows, heads, window^2, D)."""
    b, h, w, c = x.shape
    x = x.reshape(b, h // window, window, w // window, window, heads, c // heads)
    return x.permute(0, 1, 3, 5, 2, 4, 6).reshape(-1, heads, window**2, c // heads)


def from_windows(x: Tensor, h: int, w: int, window: int) -> Tensor:
    """(B * windows, heads, window^2, D) -> (B, H, W, heads * D)."""
    _, heads, _, d = x.shape
    x = x.reshape(-1, h // window, w // window, heads, window, window, d)
    return x.permute(0, 1, 4, 2, 5, 3, 6).reshape(-1, h, w, heads * d)
