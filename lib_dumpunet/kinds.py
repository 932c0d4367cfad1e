"""The table of kinds: what can be captured, and how it is requested, named, drawn and shown.

A new kind needs one row here, a reader in ``hooks/readers.py`` that captures it, and a drawing in ``sinks/drawing.py``
unless an existing one fits. File names, manifests, folders, the panel, the webui's API, galleries and explorer pages
are derived from this table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Kind = str
"""Name of a row."""
FEATURE = "feature"
"""The default kind: names of files, keys and lookups in a notebook that give only a block mean this one."""
Role = Literal["whole", "average", "layer"]
"""What a picture of a tensor shows: all of it, its average map, or only a heatmap on a transparent background."""
Section = Literal["features", "difference", "attention"]
"""Section of the settings that says how a kind is drawn and where it is dumped."""
Scope = Literal["block", "layer", "image"]
"""What a tensor belongs to: a block, one attention layer of a block, or a whole image."""

CHANNELS = ("channel", "height", "width")
MAP = ("height", "width")


@dataclass(frozen=True)
class KindRow:
    """Everything that defines a kind.

    Attributes:
        name: name in tags, keys and manifests; for layers and differences also in file names.
        axes: axes of its tensors.
        about: a short description of a tensor.
        section: section of the settings that applies to it.
        scope: what one tensor belongs to.
        drawing: name of its drawing in ``sinks/drawing.py``; empty if it is never drawn.
        choice: value of the setting *Output features* that requests it, with its label in ``choice_label`` and its
            help in ``choice_help``; empty if something else requests it.
        heading: title of a group of its pictures.
        folder: folder of its pictures on the command line.
        mode: its mode in explorer pages; empty if they do not show it. ``mode_label`` is the mode's label, and
            ``page_parts`` says which parts of a tensor the page keeps.
        titles: endings of the names of pictures, by role.
        gallery: position in the webui's gallery.
        reads_text: whether it depends on the text that a layer reads.
        keeps_dtype: whether it has the model's dtype; all others are float32.
        is_passing: whether it is only an intermediate result, neither drawn nor dumped.
    """

    name: Kind
    axes: tuple[str, ...]
    about: str
    section: Section
    scope: Scope
    drawing: str = ""
    choice: str = ""
    choice_label: str = ""
    choice_help: str = ""
    heading: str = ""
    folder: str = "attention"
    mode: str = ""
    mode_label: str = ""
    page_parts: Literal["channels", "tokens", "points", ""] = ""
    titles: Mapping[Role, str] = field(default_factory=lambda: {"average": "average", "layer": "layer"})
    gallery: int = 100
    reads_text: bool = False
    keeps_dtype: bool = False
    is_passing: bool = False


KINDS: dict[Kind, KindRow] = {}
"""The rows by name, in the order in which they are shown."""
CHOICES: dict[str, str] = {}
"""The choices of *Output features*: values and labels."""


def add_kind(row: KindRow) -> None:
    """Add a row to the table."""
    KINDS[row.name] = row
    if row.choice_label:
        CHOICES[row.choice] = row.choice_label


def kinds_of_choice(choice: str) -> frozenset[Kind]:
    """Return the kinds that a choice of *Output features* captures."""
    return frozenset(row.name for row in KINDS.values() if row.choice == choice)


def kinds_of_section(section: Section) -> frozenset[Kind]:
    """Return the kinds that a section's settings apply to."""
    return frozenset(row.name for row in KINDS.values() if row.section == section)


def of_image(kind: Kind) -> bool:
    """Return whether a kind belongs to a whole image: a mean over blocks and steps."""
    return KINDS[kind].scope == "image"


def is_shown(row: KindRow) -> bool:
    """Return whether explorer pages show a kind, as maps of blocks or over the image."""
    return bool(row.mode) or (row.scope == "image")


def modes() -> dict[str, KindRow]:
    """Return the modes of explorer pages in order, each with its row."""
    return {row.mode: row for row in KINDS.values() if row.mode}


for _row in (
    KindRow(
        name=FEATURE,
        axes=CHANNELS,
        about="output of a block",
        section="features",
        scope="block",
        drawing="channels",
        heading="U-Net features",
        folder="features",
        mode="feature",
        mode_label="Features",
        page_parts="channels",
        titles={"whole": "unet", "average": "unet-average"},
        gallery=1,
        keeps_dtype=True,
    ),
    KindRow(
        name="difference",
        axes=CHANNELS,
        about="a block's output with per-block prompts minus its output without, in float32",
        section="difference",
        scope="block",
        drawing="difference",
        heading="Differences",
        folder="difference",
        mode="difference",
        mode_label="Difference",
        page_parts="channels",
        gallery=0,
    ),
    KindRow(
        name="k",
        axes=("head", "token", "dim"),
        about="keys of a cross-attention layer, in the model's dtype",
        section="attention",
        scope="layer",
        drawing="keys",
        choice="k",
        choice_label="K",
        choice_help="the keys of the text",
        heading="Attention: K",
        gallery=5,
        reads_text=True,
        keeps_dtype=True,
    ),
    KindRow(
        name="qk",
        axes=("head", "token", *MAP),
        about="cross-attention of each position to each token; adds up to 1 over tokens",
        section="attention",
        scope="layer",
        drawing="tokens",
        choice="qk",
        choice_label="Q*K",
        choice_help="attention maps of each token",
        heading="Attention: Q*K",
        mode="attention",
        mode_label="Attention",
        page_parts="tokens",
        gallery=4,
        reads_text=True,
    ),
    KindRow(
        name="vqk",
        axes=CHANNELS,
        about="cross-attention output, all heads, in the model's dtype",
        section="attention",
        scope="layer",
        drawing="channels",
        choice="vqk",
        choice_label="V*Q*K",
        choice_help="the cross-attention output",
        heading="Attention: V*Q*K",
        mode="values",
        mode_label="Values",
        page_parts="channels",
        gallery=6,
        reads_text=True,
        keeps_dtype=True,
    ),
    KindRow(
        name="self",
        axes=("head", "row", "column", *MAP),
        about='self-attention maps of a grid "row column" of query points',
        section="attention",
        scope="layer",
        drawing="lattice",
        choice="self",
        choice_label="self Q*K",
        choice_help="self-attention maps of a grid of query points",
        heading="Self-attention: query points",
        mode="self",
        mode_label="Self-attention",
        page_parts="points",
        gallery=7,
    ),
    KindRow(
        name="pca",
        axes=("component", *MAP),
        about="first three principal components of self-attention",
        section="attention",
        scope="layer",
        drawing="components",
        heading="Self-attention: components",
        gallery=8,
    ),
    KindRow(
        name="update",
        axes=CHANNELS,
        about="what a block's transformer adds to the residual stream: its output minus its input, in float32",
        section="attention",
        scope="block",
        drawing="channels",
        choice="update",
        choice_label="update",
        choice_help="what a block's transformer adds to the residual stream",
        heading="Transformer updates",
        mode="update",
        mode_label="Updates",
        page_parts="channels",
        gallery=9,
    ),
    KindRow(
        name="word",
        axes=MAP,
        about="cross-attention of each position to a word: mean over heads, layers and steps",
        section="attention",
        scope="image",
        choice="words",
        choice_label="words",
        choice_help="heatmaps of words",
        heading="Words",
        folder="words",
        gallery=2,
    ),
    KindRow(
        name="point",
        axes=MAP,
        about="self-attention of a point of the image: mean over heads, layers and steps",
        section="attention",
        scope="image",
        heading="Points",
        folder="points",
        gallery=3,
    ),
    KindRow(
        name="plain",
        axes=CHANNELS,
        about="output of a block in the run without per-block prompts, for a difference",
        section="difference",
        scope="block",
        is_passing=True,
        keeps_dtype=True,
    ),
    KindRow(
        name="steered",
        axes=CHANNELS,
        about="output of a block in the run with per-block prompts, for a difference",
        section="difference",
        scope="block",
        is_passing=True,
        keeps_dtype=True,
    ),
    KindRow(
        name="pooled_self",
        axes=(*MAP, "row", "column"),
        about="self-attention of each position: mean over heads, summed over parts of the map",
        section="attention",
        scope="layer",
        choice="self",
        is_passing=True,
    ),
):
    add_kind(_row)
