"""Small U-Nets with random weights: in ldm's layout, in diffusers', and with the same weights in both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint
from torch import Tensor, nn

from lib_dumpunet.ports import BatchRow, ModelCall

CONTEXT = 16
HEADS = {"sd1": {"num_heads": 8}, "sd2": {"num_head_channels": 8, "use_linear_in_transformer": True}}


def ldm_unet(family: str, width: int = 32) -> nn.Module:
    """Make ldm's U-Net with all weights random: those that start at zero would hide mistakes."""
    from ldm.modules.diffusionmodules.openaimodel import UNetModel

    torch.manual_seed(0)
    unet = UNetModel(
        image_size=32,
        in_channels=4,
        out_channels=4,
        model_channels=width,
        attention_resolutions=[4, 2, 1],
        num_res_blocks=2,
        channel_mult=[1, 2, 4, 4],
        use_spatial_transformer=True,
        transformer_depth=1,
        context_dim=CONTEXT,
        use_checkpoint=False,
        legacy=False,
        **HEADS[family],
    )
    for weight in unet.parameters():
        if weight.ndim > 1 and not weight.any():
            nn.init.normal_(weight, std=0.05)
    return unet.eval()


def diffusers_unet(family: str, width: int = 32, **other: Any) -> UNet2DConditionModel:
    """Make diffusers' U-Net of the same shape."""
    torch.manual_seed(0)
    widths = [width, 2 * width, 4 * width, 4 * width]
    config: dict[str, Any] = {
        "sample_size": 16,
        "block_out_channels": widths,
        "cross_attention_dim": CONTEXT,
        "attention_head_dim": 8 if family == "sd1" else [w // 8 for w in widths],
        "use_linear_projection": family == "sd2",
    }
    return UNet2DConditionModel(**{**config, **other}).eval()


def sdxl_unet() -> UNet2DConditionModel:
    """Make a narrow U-Net with SDXL's blocks: depths 1, 2 and 10 become 1, 2 and 3."""
    torch.manual_seed(0)
    return UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(32, 64, 64),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 2, 3),
        attention_head_dim=(4, 8, 8),
        cross_attention_dim=CONTEXT,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + CONTEXT,
    ).eval()


def twins(family: str) -> tuple[nn.Module, UNet2DConditionModel]:
    """Make two U-Nets with the same weights, in ldm's layout and in diffusers'."""
    original = ldm_unet(family)
    copy = diffusers_unet(family)
    weights = {f"model.diffusion_model.{name}": t for name, t in original.state_dict().items()}
    copy.load_state_dict(convert_ldm_unet_checkpoint(weights, dict(copy.config)))
    return original, copy


def unet_inputs(batch: int = 2, height: int = 16, width: int = 16) -> tuple[Tensor, Tensor, Tensor]:
    """Make latents, a timestep for each row, and a text context."""
    generator = torch.Generator().manual_seed(1)
    latents = torch.randn(batch, 4, height, width, generator=generator)
    return latents, torch.full((batch,), 500), torch.randn(batch, 7, CONTEXT, generator=generator)


@dataclass
class FakeClock:
    """A clock set by hand; rows are (image, branch), plus the part of a prompt with several."""

    step: int = 1
    rows: Sequence[tuple[int, str] | tuple[int, str, int]] = field(
        default_factory=lambda: [(0, "cond"), (1, "cond")]
    )
    hires: bool = False

    def now(self) -> ModelCall:
        return ModelCall(self.step, tuple(BatchRow(*row) for row in self.rows), self.hires)  # type: ignore[arg-type]


def hook_count(module: nn.Module) -> int:
    """Count the hooks on a module and its descendants."""
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in module.modules())
