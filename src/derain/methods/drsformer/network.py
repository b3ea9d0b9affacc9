"""DRSformer: a sparse Transformer for deraining (Chen et al., "Learning A Sparse Transformer Network
for Effective Image Deraining", CVPR 2023).

A four-level encoder and decoder that predicts what to add to the rainy picture. Its blocks attend
across channels, with the largest logits only (top-k sparse attention, TKSA), and mix two scales in
their feed-forward part (MSFN); the variant `full` has two mixtures of small convolutional experts
(MEFC), before the encoder and after the decoder. `fast.py` computes the same without gradients.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from derain.errors import DerainError
from derain.methods.network import RainNetwork, Spec, multiply_adds_of
from derain.nn.channel_attention import cosines, join_heads, split_heads
from derain.nn.grouped import GroupedConv2d
from derain.nn.norms import is_bias_free
from derain.nn.pointwise import PointwiseConv2d
from derain.nn.recomputed import recomputed
from derain.nn.resizing import Downsample, PatchEmbedding, Upsample
from derain.nn.transformer import transformer_blocks
from derain.nn.weighting import weighted_cat

_WHY_NOT_FLOAT16 = "rounding changes which attention logits are kept, and the result with them"


class DRSformer(RainNetwork):
    """The network; state dict names and shapes are the published ones.

    Args:
        inp_channels, out_channels: channels of the pictures, 3.
        dim: channels at full size; doubled at each of the three smaller sizes.
        num_blocks: blocks at each of the four sizes, the same in encoder and decoder.
        heads: attention heads at each size.
        ffn_expansion_factor: hidden channels of half a feed-forward part, per channel.
        bias: whether convolutions have a bias.
        LayerNorm_type: "WithBias" or "BiasFree".
        mefc: whether the two mixtures of experts exist: true in `full`, false in `light`.

    Raises:
        DerainError: inconsistent sizes, or another norm.
    """

    spec = Spec(multiple_of=8, refused_precisions={"float16": _WHY_NOT_FLOAT16})

    def __init__(
        self,
        inp_channels: int = 3,
        out_channels: int = 3,
        dim: int = 48,
        num_blocks: Sequence[int] = (4, 6, 6, 8),
        heads: Sequence[int] = (1, 2, 4, 8),
        ffn_expansion_factor: float = 2.66,
        bias: bool = False,
        LayerNorm_type: str = "WithBias",
        mefc: bool = True,
    ) -> None:
        super().__init__()
        _check(inp_channels, out_channels, dim, num_blocks, heads)
        bias_free = is_bias_free(LayerNorm_type)

        def blocks(level: int, width: int) -> nn.Sequential:
            hidden = int(width * ffn_expansion_factor)
            return transformer_blocks(
                num_blocks[level],
                width,
                attention=lambda: SparseAttention(width, heads[level], bias),
                feed_forward=lambda: FeedForward(width, hidden, bias),
                bias_free_norm=bias_free,
            )

        self.patch_embed = PatchEmbedding(inp_channels, dim)
        if mefc:
            self.encoder_level0 = ExpertMixture(dim)
        self.encoder_level1 = blocks(0, dim)
        self.down1_2 = Downsample(dim)
        self.encoder_level2 = blocks(1, 2 * dim)
        self.down2_3 = Downsample(2 * dim)
        self.encoder_level3 = blocks(2, 4 * dim)
        self.down3_4 = Downsample(4 * dim)
        self.latent = blocks(3, 8 * dim)
        self.up4_3 = Upsample(8 * dim)
        self.reduce_chan_level3 = PointwiseConv2d(8 * dim, 4 * dim, bias=bias)
        self.decoder_level3 = blocks(2, 4 * dim)
        self.up3_2 = Upsample(4 * dim)
        self.reduce_chan_level2 = PointwiseConv2d(4 * dim, 2 * dim, bias=bias)
        self.decoder_level2 = blocks(1, 2 * dim)
        self.up2_1 = Upsample(2 * dim)
        self.decoder_level1 = blocks(0, 2 * dim)
        if mefc:
            self.refinement = ExpertMixture(2 * dim)
        self.output = nn.Conv2d(2 * dim, out_channels, 3, padding=1, bias=bias)
        self.mefc = mefc

    def plain(self, rainy: Tensor) -> dict[str, Tensor]:
        """`image` (B, 3, H, W), not clamped; with `mefc` also the weights of the experts before the
        encoder and after the decoder, `encoder_experts` and `refinement_experts` (B, 4 steps, 8)."""
        experts = {}
        x = self.patch_embed(rainy)
        if self.mefc:
            experts["encoder_experts"] = self.encoder_level0.expert_weights(x)
            x = self.encoder_level0(x)
        e1 = self.encoder_level1(x)
        e2 = self.encoder_level2(self.down1_2(e1))
        e3 = self.encoder_level3(self.down2_3(e2))
        x = self.latent(self.down3_4(e3))
        x = self.decoder_level3(self.reduce_chan_level3(torch.cat([self.up4_3(x), e3], 1)))
        x = self.decoder_level2(self.reduce_chan_level2(torch.cat([self.up3_2(x), e2], 1)))
        x = self.decoder_level1(torch.cat([self.up2_1(x), e1], 1))
        if self.mefc:
            experts["refinement_experts"] = self.refinement.expert_weights(x)
            x = self.refinement(x)
        return {"image": self.output(x) + rainy, **experts}

    def multiply_adds(self, height: int, width: int) -> int:
        """As published, which multiplies V by each of the four selections; `plain`, by their sum."""
        more = 0

        def count_three_more(layer: SparseAttention, _: object, y: Tensor) -> None:
            nonlocal more
            more += 3 * y.numel() * (y.shape[1] // layer.heads)

        copied, rainy = self._without_data(height, width)
        for layer in copied.modules():
            if isinstance(layer, SparseAttention):
                layer.register_forward_hook(count_three_more)
        return multiply_adds_of(copied, rainy) + more


def _check(
    inp_channels: int, out_channels: int, dim: int, num_blocks: Sequence[int], heads: Sequence[int]
) -> None:
    if inp_channels != out_channels:
        raise DerainError(
            f"DRSformer adds to its input: inp_channels ({inp_channels}) and out_channels ({out_channels}) "
            "must be equal."
        )
    if len(num_blocks) != 4 or len(heads) != 4:
        raise DerainError("DRSformer has four levels: num_blocks and heads are lists of four numbers.")
    if dim < 2 or dim % 2:
        raise DerainError(f"DRSformer's dim must be even, not {dim}.")
    for level, count in enumerate(heads):
        width = dim * 2**level
        if count < 1 or width % count or width // count < 2:
            raise DerainError(
                f"DRSformer's heads[{level}] is {count}; it must divide {width} channels "
                "into heads of 2 channels or more."
            )


class SparseAttention(nn.Module):
    """Top-k sparse attention across channels (TKSA): (B, C, H, W) -> the same."""

    def __init__(self, channels: int, heads: int, bias: bool) -> None:
        super().__init__()
        self.heads = heads
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.attn1, self.attn2, self.attn3, self.attn4 = (nn.Parameter(torch.tensor([0.2])) for _ in range(4))
        self.qkv = PointwiseConv2d(channels, 3 * channels, bias=bias)
        self.qkv_dwconv = nn.Conv2d(3 * channels, 3 * channels, 3, padding=1, groups=3 * channels, bias=bias)
        self.project_out = PointwiseConv2d(channels, channels, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        logits, v = self.logits_and_values(x)
        attention = torch.stack(sparse_attentions(logits, self.scales())).sum(0)  # V is multiplied once
        y: Tensor = self.project_out(join_heads(v @ attention.transpose(-2, -1), *x.shape[2:]))
        return y

    def logits_and_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, heads, C / heads, C / heads) and (B, heads, H W, C / heads)."""
        q, k, v = (split_heads(part, self.heads) for part in self.qkv_dwconv(self.qkv(x)).chunk(3, 1))
        return self.temperature * cosines(q, k), v

    def scales(self) -> Tensor:
        """The weights of the four selections, (4,)."""
        return torch.cat([self.attn1, self.attn2, self.attn3, self.attn4])


def sparse_attentions(logits: Tensor, scales: Tensor) -> list[Tensor]:
    """For each of the four selections, the softmax over the logits that survive it, times its scale.

    Args:
        logits: (..., C, C), C >= 2; the selections are made row by row.
        scales: (4,).

    Returns:
        Four times (..., C, C); entries that did not survive are 0.
    """
    attentions = []
    for k, scale in zip(kept(logits.shape[-1]), scales, strict=True):
        values, places = logits.topk(k, dim=-1)
        attentions.append(torch.zeros_like(logits).scatter(-1, places, scale * values.softmax(-1)))
    return attentions


def kept(channels: int) -> tuple[int, int, int, int]:
    """How many logits of a row of C survive in the four selections."""
    return channels // 2, channels * 2 // 3, channels * 3 // 4, channels * 4 // 5


class FeedForward(nn.Module):
    """Mixed-scale feed-forward part (MSFN): (B, C, H, W) -> the same.

    The convolutions to `hidden` channels map two neighbouring channels to one.
    """

    def __init__(self, channels: int, hidden: int, bias: bool) -> None:
        super().__init__()
        both = 2 * hidden
        self.project_in = PointwiseConv2d(channels, both, bias=bias)
        self.dwconv3x3 = nn.Conv2d(both, both, 3, padding=1, groups=both, bias=bias)
        self.dwconv5x5 = GroupedConv2d(both, both, 5, padding=2, groups=both, bias=bias)
        self.dwconv3x3_1 = GroupedConv2d(both, hidden, 3, padding=1, groups=hidden, bias=bias)
        self.dwconv5x5_1 = GroupedConv2d(both, hidden, 5, padding=2, groups=hidden, bias=bias)
        self.project_out = PointwiseConv2d(both, channels, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        u = self.project_in(x)
        a1, a2 = self.dwconv3x3(u).chunk(2, 1)
        b1, b2 = self.dwconv5x5(u).chunk(2, 1)
        p = self.dwconv3x3_1(torch.cat([a1, b1], 1).relu_())
        q = self.dwconv5x5_1(torch.cat([a2, b2], 1).relu_())
        y: Tensor = self.project_out(torch.cat([p, q], 1).relu_())
        return y


STEPS = 4
EXPERTS = 8
SEPARABLE = (1, 3, 5, 7)  # kernel sides of the first four experts
DILATED = (3, 5, 7)  # and of the next three


class ExpertMixture(nn.Module):
    """Mixture of experts feature compensator (MEFC): (B, C, H, W) -> the same, not negative."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList([ExpertScores(channels), ExpertSteps(channels)])

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layers[1](x, self.expert_weights(x))
        return y

    def expert_weights(self, x: Tensor) -> Tensor:
        """(B, 4 steps, 8 experts), each step's sum is 1."""
        scores: Tensor = self.layers[0](x)
        return scores.softmax(-1)


class ExpertScores(nn.Module):
    """(B, C, H, W) -> (B, 4 steps, 8 experts), from the means over the picture."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.ca_fc = nn.Sequential(nn.Linear(channels, 64), nn.ReLU(), nn.Linear(64, STEPS * EXPERTS))

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.ca_fc(x.mean((2, 3)))
        return scores.view(-1, STEPS, EXPERTS)


class ExpertSteps(nn.Module):
    """The four steps of a mixture: (B, C, H, W) and (B, 4, 8) -> (B, C, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.preprocess = _below_op(PointwiseConv2d(channels, channels, bias=False), nn.ReLU())
        self._ops = nn.ModuleList([Experts(channels) for _ in range(STEPS)])

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        x = self.preprocess(x)
        for step, weights_of_step in zip(self._ops, weights.unbind(1), strict=True):
            x = x + step(x, weights_of_step)  # not negative, so that the ReLU drawn here has no effect
        return x


class Experts(nn.Module):
    """The eight experts of one step: (B, C, H, W) and their weights (B, 8) -> (B, C, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        experts: list[nn.Module] = []
        for side in SEPARABLE:
            twice = _separable(channels, side), _separable(channels, side)
            experts.append(_below_op(*twice[0], nn.ReLU(), *twice[1]))
        for side in DILATED:
            experts.append(_below_op(*_separable(channels, side, dilation=2)))
        experts.append(nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False))
        self._ops = nn.ModuleList(experts)
        self._out = nn.Sequential(PointwiseConv2d(EXPERTS * channels, channels, bias=False), nn.ReLU())

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        maps = [recomputed(expert, x) for expert in self._ops]  # else a sixth of the memory
        y: Tensor = self._out(weighted_cat(maps, weights))
        return y


def _separable(channels: int, side: int, dilation: int = 1) -> tuple[nn.Conv2d, nn.Conv2d]:
    """A depthwise and a 1x1 convolution."""
    around = dilation * (side // 2)
    depthwise = GroupedConv2d(
        channels, channels, side, padding=around, dilation=dilation, groups=channels, bias=False
    )
    return depthwise, PointwiseConv2d(channels, channels, bias=False)


def _below_op(*layers: nn.Module) -> nn.Sequential:
    """The layers under the name that they have in the state dict."""
    return nn.Sequential(OrderedDict(op=nn.Sequential(*layers)))
