"""All options, each defined once: default, label, help, choices and limits.

The command line, the panels and the tables of the documentation are made from these fields, so an option added here
appears everywhere. ``option`` declares what an interface needs to show a field; ``__post_init__`` refuses values that
are invalid in every interface, and names the field by its label.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from lib_dumpunet.errors import SettingsError, within
from lib_dumpunet.kinds import CHOICES, KINDS
from lib_dumpunet.settings.option import check_fields, option

METHODS = {"white-black": "White/Black", "red-blue": "Red/Blue", "rgb": "Custom RGB", "hsl": "Custom HSL"}
TRANSFORMS = {"auto01": "Auto [0,1]", "auto11": "Auto [-1,1]", "linear": "Linear", "sigmoid": "Sigmoid"}
AVERAGES = {"disable": "disable", "sum": "sum", "1-norm": "1-norm", "2-norm": "2-norm"}
FORMATS = {"bin": "bin (raw float32)", "npy": "npy", "safetensors": "safetensors"}
RUNS = {"steered": "steered", "both": "both"}
FORMULAS = {"rgb": ("abs(v)", "abs(v)", "abs(v)"), "hsl": ("(2+v)/3", "1.0", "0.5")}


SAMPLERS = {
    name: name
    for name in ("Euler", "Euler a", "Heun", "DDIM", "DPM++ 2M Karras", "DPM++ SDE", "LMS", "UniPC", "LCM")
}


@dataclass(frozen=True)
class ColorSettings:
    """How values become colours: first the transform, then the method."""

    method: str = option(
        "hsl",
        "Colorize method",
        "White/Black is bright where |v| is large, Red/Blue shows the sign, Custom computes each colour channel",
        choices=METHODS,
    )
    transform: str = option(
        "auto01",
        "Value transform",
        "map values to [0,1] or [-1,1]: by each map's own range, by fixed limits, or by a sigmoid",
        choices=TRANSFORMS,
    )
    clamp_min: float = option(
        -1.0, "Clamp min.", "lower limit of the linear transform", limits=(-1e4, 1e4), flag="clamp"
    )
    clamp_max: float = option(
        1.0, "Clamp max.", "upper limit of the linear transform", limits=(-1e4, 1e4), flag="clamp"
    )
    gain: float = option(
        1.0, "gain", "steepness of the sigmoid transform", limits=(0.001, 1e4), flag="sigmoid"
    )
    offset: float = option(
        0.0, "offset X", "added to the value before the sigmoid", limits=(-1e4, 1e4), flag="sigmoid"
    )
    formula: tuple[str, str, str] | None = option(
        None,
        "Color space",
        "three formulas of v, for R;G;B or H;S;L, for example (2+v)/3; 1.0; 0.5",
        placeholder="(2+v)/3; 1.0; 0.5",
    )

    def __post_init__(self) -> None:
        check_fields(self)
        if self.clamp_min >= self.clamp_max:
            with within("clamp_min"):
                raise SettingsError(
                    f"{self.clamp_min:g} is not below Clamp max. {self.clamp_max:g}",
                    remedy="Make the first number the smaller one.",
                    field="Clamp min.",
                )

    @property
    def channels(self) -> tuple[str, str, str]:
        """The three formulas of a custom method: the user's, or the method's defaults."""
        return self.formula or FORMULAS[self.method]


@dataclass(frozen=True)
class DumpSettings:
    """Which tensor files are written; the host sets the folder if ``path`` is empty."""

    enabled: bool = option(False, "Dump feature tensors to files", "write the raw tensors to files")
    format: str = option(
        "npy",
        "Format",
        "write the tensors, as bin (raw float32), npy or safetensors",
        choices=FORMATS,
        flag="dump",
    )
    path: str = option("", "Output path", "folder for the files, created if missing")

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class FeatureSettings:
    """What to capture from the U-Net's blocks, and how to draw it."""

    enabled: bool = option(True, "Extract U-Net features", "draw each block's output", flag="features")
    layers: str = option(
        "",
        "Layers",
        "blocks to capture; empty means all",
        placeholder="eg. IN00-OUT03(+2),OUT10",
        flag="blocks",
        alias="layers",
    )
    steps: str = option(
        "",
        "Image saving steps",
        "sampling steps to capture; empty means all",
        placeholder="eg. 1,5-20(+5)",
        flag="save-steps",
    )
    average: str = option(
        "disable",
        "Show averaged map",
        "one more picture, over all C channels: sum v / C (sum), sum |v| / C (1-norm), or sqrt(sum v² / C) (2-norm)",
        choices=AVERAGES,
    )
    color: ColorSettings = field(default_factory=ColorSettings)
    dump: DumpSettings = field(default_factory=DumpSettings)

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class DifferenceSettings:
    """Which differences per-block prompts make in the U-Net, and how to draw them."""

    enabled: bool = option(
        False,
        "Output difference map of U-Net features between with and without Layer Prompt",
        "generate each image twice from the same seed, without and with per-block prompts, and draw the difference",
        flag="difference",
    )
    layers: str = option(
        "",
        "Difference layers",
        "blocks to compare; empty means all",
        placeholder="eg. IN00-OUT03(+2),OUT10",
        flag="difference-blocks",
        alias="difference-layers",
    )
    steps: str = option(
        "",
        "Difference steps",
        "sampling steps to compare; empty means all",
        placeholder="eg. 1,5-20(+5)",
        flag="difference-steps",
    )
    average: str = option(
        "disable",
        "Show averaged difference map",
        "one more picture, over all channels of the difference, by the formulas of the averaged map",
        choices=AVERAGES,
        flag="difference-average",
    )
    runs: str = option(
        "steered",
        "Features and attention of",
        "which runs of a difference give features and attention: the one with per-block prompts, or both; results "
        "of the one without are marked plain",
        choices=RUNS,
        flag="difference-runs",
    )
    color: ColorSettings = field(default_factory=ColorSettings)
    dump: DumpSettings = field(default_factory=DumpSettings)

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class AttentionSettings:
    """What to capture from the attention layers, and how to draw it."""

    kinds: tuple[str, ...] = option(
        (),
        "Output features",
        "what to draw, separated by commas: "
        + ", ".join(f"{row.choice_help} ({row.choice})" for row in KINDS.values() if row.choice_label),
        choices=CHOICES,
        flag="attention",
    )
    layers: str = option(
        "",
        "Attention layers",
        "blocks to capture attention from; empty means all that have any",
        placeholder="eg. IN04-IN08,OUT09",
        flag="attention-blocks",
        alias="attention-layers",
    )
    steps: str = option(
        "",
        "Attention steps",
        "sampling steps to capture attention in; empty means all",
        placeholder="eg. 1,5-20(+5)",
        flag="attention-steps",
    )
    average: str = option(
        "disable",
        "Show map averaged over heads",
        "one more picture, over all heads, by the formulas of the averaged map",
        choices=AVERAGES,
        flag="attention-average",
    )
    words: str = option(
        "",
        "Words",
        "words or phrases of the prompt to draw heatmaps of, separated by commas; empty means all except function "
        "words",
        placeholder="eg. red circle, square",
    )
    negative_words: str = option(
        "",
        "Negative words",
        "the same for the negative prompt; * means all except function words, empty means none",
        placeholder="eg. blurry",
        flag="negative-words",
    )
    lattice: int = option(8, "Lattice", "query points per side of the self-attention grid", limits=(1, 16))
    points: str = option(
        "",
        "Points",
        "points of the image to draw self-attention heatmaps of, as X,Y in pixels, separated by spaces",
        placeholder="eg. 120,80 200,200",
    )
    color: ColorSettings = field(default_factory=ColorSettings)
    dump: DumpSettings = field(default_factory=DumpSettings)
    heat: DumpSettings = field(default_factory=DumpSettings)
    """Where only the maps of words and points are written; they are few and small."""

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def enabled(self) -> bool:
        """Whether any attention is requested; words and points count even if their kind is not selected."""
        return bool(self.kinds or self.words.strip() or self.negative_words.strip() or self.points.strip())


@dataclass(frozen=True)
class GenerateSettings:
    """How the standalone host samples images; a webui has its own fields for these."""

    negative: str = option("", "Negative prompt", "what the image should not show")
    steps: int = option(20, "Sampling steps", "steps of the sampler", limits=(1, 1000))
    sampler: str = option(
        "", "Sampling method", "empty means the model's own", choices={"": "model's own", **SAMPLERS}
    )
    guidance: float = option(
        7.0,
        "CFG Scale",
        "how strongly the prompt guides sampling; 1 turns guidance and the negative prompt off",
        limits=(1, 100),
    )
    seed: int = option(
        -1,
        "Seed",
        "seed of the first image, -1 means random; each further image adds 1",
        limits=(-1, 2**53),
    )
    width: int = option(0, "Width", "pixels, a multiple of 8; 0 means the model's own", limits=(0, 16384))
    height: int = option(0, "Height", "pixels, a multiple of 8; 0 means the model's own", limits=(0, 16384))
    batch: int = option(1, "Batch size", "images of each prompt generated at once", limits=(1, 64))
    count: int = option(1, "Batch count", "number of batches", limits=(1, 10000))

    def __post_init__(self) -> None:
        check_fields(self)
        for name, side in (("width", self.width), ("height", self.height)):
            with within(name):
                if side % 8:
                    raise SettingsError(
                        f"{side} is not a multiple of 8",
                        remedy=f"Use {side // 8 * 8 or 8} or {side // 8 * 8 + 8}.",
                        field=name.title(),
                    )


@dataclass(frozen=True)
class ExplorerSettings:
    """Whether to write explorer pages."""

    enabled: bool = option(
        False,
        "Write explorer page",
        "write one HTML file for each image, to explore all captures in a browser, block by block, step by step",
        flag="html",
    )
    alone: bool = option(
        False,
        "Explorer page only",
        "leave out the pictures of single blocks, layers and words",
        flag="html-only",
    )
    limit: float = option(
        25.0,
        "Size limit",
        "largest size of a page in megabytes, 25 if not given; above it, single channels are reduced or left out",
        limits=(1, 500),
        flag="html-limit",
    )

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class Settings:
    """All settings of one run."""

    features: FeatureSettings = field(default_factory=FeatureSettings)
    attention: AttentionSettings = field(default_factory=AttentionSettings)
    difference: DifferenceSettings = field(default_factory=DifferenceSettings)
    explorer: ExplorerSettings = field(default_factory=ExplorerSettings)

    @property
    def looking(self) -> Mapping[str, FeatureSettings | AttentionSettings | DifferenceSettings]:
        """The sections that say what to capture, by name."""
        return {name: getattr(self, name) for name in ("features", "attention", "difference")}

    def with_dumps(self, change: Callable[[DumpSettings], DumpSettings]) -> Settings:
        """Apply ``change`` to every dump setting."""
        changed: dict[str, Any] = {}
        for name, section in self.looking.items():
            with within(name, "dump", "path"):
                changed[name] = replace(section, dump=change(section.dump))
                if isinstance(section, AttentionSettings):
                    changed[name] = replace(changed[name], heat=change(section.heat))
        return replace(self, **changed)


@dataclass(frozen=True)
class LayerPromptSettings:
    """Whether prompts are read per block."""

    enabled: bool = option(
        False,
        "Enable Layer Prompt",
        "give blocks their own text by (~: blocks: text ; blocks: text :~) in prompts",
    )


@dataclass(frozen=True)
class OutputSettings:
    """What a panel's host does with pictures and log messages."""

    save: bool = option(
        True,
        "Save generated images",
        "save each picture next to its generated image, under the same number",
    )
    log: bool = option(False, "log to stderr", "log details to the console")


@dataclass(frozen=True)
class AttentionSwitch:
    """Whether a panel's attention settings apply; on the command line, giving any of them is enough."""

    enabled: bool = option(
        False,
        "Extract attention",
        "draw the attention of each block to the text and to the image itself",
    )


@dataclass(frozen=True)
class PanelSettings:
    """All settings of a panel; by default nothing is captured, and no bracket is read."""

    features: FeatureSettings = field(default_factory=lambda: FeatureSettings(enabled=False))
    switch: AttentionSwitch = field(default_factory=AttentionSwitch)
    attention: AttentionSettings = field(default_factory=AttentionSettings)
    layer_prompt: LayerPromptSettings = field(default_factory=LayerPromptSettings)
    difference: DifferenceSettings = field(default_factory=DifferenceSettings)
    explorer: ExplorerSettings = field(default_factory=ExplorerSettings)
    output: OutputSettings = field(default_factory=OutputSettings)

    def __post_init__(self) -> None:
        if self.switch.enabled and not self.attention.enabled:
            with within("attention", "kinds"):
                raise SettingsError(
                    "nothing is selected",
                    remedy=f"Choose among {', '.join(CHOICES.values())}, or write words or points.",
                    field="Output features",
                )

    @property
    def core(self) -> Settings:
        """Settings for the core, without parts that are off; words are dumped where all attention is."""
        attention = (
            replace(self.attention, heat=self.attention.dump) if self.switch.enabled else AttentionSettings()
        )
        difference = self.difference if self.layer_prompt.enabled else DifferenceSettings()
        return Settings(self.features, attention, difference, self.explorer)

    @property
    def wants_anything(self) -> bool:
        """Whether the settings ask for anything."""
        core = self.core
        return self.layer_prompt.enabled or core.features.enabled or core.attention.enabled
