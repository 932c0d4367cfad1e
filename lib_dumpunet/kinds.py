"""The table of kinds: what can be captured, how it is asked for, named, drawn and shown.

A new kind is one row here, a reader in ``hooks/readers.py`` that captures it, and a drawing in ``sinks/drawing.py``
where none of those there fits. File names, manifests, folders, the panel, the webui's API, galleries and explorer pages
take what they need from this table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Kind = str
"""Name of a row."""
FEATURE = "feature"
"""The kind that a block's name alone stands for: in names of files, keys and questions of a notebook."""
Role = Literal["whole", "average", "layer"]
"""What one of several pictures of a tensor shows: all of it, its average map, or heat alone on a transparent ground."""
Section = Literal["features", "difference", "attention"]
"""Part of the settings that says how a kind is drawn and where it is dumped."""
Scope = Literal["block", "layer", "image"]
"""What a tensor is of: a block, one attention layer of a block, or an image as a whole."""

CHANNELS = ("channel", "height", "width")
MAP = ("height", "width")


@dataclass(frozen=True)
class KindRow:
    """All that is known of a kind.

    Attributes:
        name: in tags, keys and manifests; of layers and differences also in file names.
        axes: of its tensors.
        about: what a tensor is, in a few words.
        section: whose settings hold for it.
        scope: what one tensor is of.
        drawing: how it is drawn, by its name in ``sinks/drawing.py``; empty where it never is.
        choice: value of the setting *Output features* that asks for it, with ``choice_label`` for people and
            ``choice_help`` for a sentence; empty where something else asks.
        heading: title of a group of its pictures.
        folder: where the command line puts its pictures.
        mode: of explorer pages; empty where they do not show it. ``mode_label`` is its name there, and ``page_parts``
            says what is kept of it.
        titles: ends of the names of pictures, by role.
        gallery: place in the webui's gallery.
        reads_text: whether it depends on the text that a layer reads.
        keeps_dtype: whether it has the model's dtype; all else is float32.
        is_passing: whether it is only on its way to something that is made of it; it is neither drawn nor dumped.
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
"""The rows by name, in the order in which they are told of."""
CHOICES: dict[str, str] = {}
"""The choices of *Output features*, with their labels."""


def add_kind(row: KindRow) -> None:
    """Put a row into the table."""
    KINDS[row.name] = row
    if row.choice_label:
        CHOICES[row.choice] = row.choice_label


def kinds_of_choice(choice: str) -> frozenset[Kind]:
    """Return what is captured where a choice of *Output features* is made."""
    return frozenset(row.name for row in KINDS.values() if row.choice == choice)


def kinds_of_section(section: Section) -> frozenset[Kind]:
    """Return the kinds that a section's settings hold for."""
    return frozenset(row.name for row in KINDS.values() if row.section == section)


def of_image(kind: Kind) -> bool:
    """Whether a kind is of an image as a whole, a mean over blocks and steps."""
    return KINDS[kind].scope == "image"


def is_shown(row: KindRow) -> bool:
    """Whether explorer pages show a kind: as maps of blocks, or over the image."""
    return bool(row.mode) or (row.scope == "image")


def modes() -> dict[str, KindRow]:
    """Return the modes of explorer pages in their order, each with the row that has it."""
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
        about="a block's output with per-block prompts minus that without, in float32",
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
        about="how much each place looks at each token; over tokens it adds up to 1",
        section="attention",
        scope="layer",
        drawing="tokens",
        choice="qk",
        choice_label="Q*K",
        choice_help="how each place looks at each token",
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
        about='where the points of a lattice "row column" look, in self-attention',
        section="attention",
        scope="layer",
        drawing="lattice",
        choice="self",
        choice_label="self Q*K",
        choice_help="where places look in the picture",
        heading="Self-attention: where points look",
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
        about="what a block's transformer adds to the stream: its output minus its input, in float32",
        section="attention",
        scope="block",
        drawing="channels",
        choice="update",
        choice_label="update",
        choice_help="what a block's transformer adds to the stream",
        heading="Transformer updates",
        mode="update",
        mode_label="Updates",
        page_parts="channels",
        gallery=9,
    ),
    KindRow(
        name="word",
        axes=MAP,
        about="how much each place looks at a word: mean of heads, layers and steps",
        section="attention",
        scope="image",
        choice="words",
        choice_label="words",
        choice_help="where each word lands",
        heading="Words",
        folder="words",
        gallery=2,
    ),
    KindRow(
        name="point",
        axes=MAP,
        about="where a point of the image looks: mean of heads, layers and steps",
        section="attention",
        scope="image",
        heading="Points",
        folder="points",
        gallery=3,
    ),
    KindRow(
        name="plain",
        axes=CHANNELS,
        about="output of a block in the run without per-block prompts, to be compared",
        section="difference",
        scope="block",
        is_passing=True,
        keeps_dtype=True,
    ),
    KindRow(
        name="steered",
        axes=CHANNELS,
        about="output of a block in the run with them, to be compared",
        section="difference",
        scope="block",
        is_passing=True,
        keeps_dtype=True,
    ),
    KindRow(
        name="pooled_self",
        axes=(*MAP, "row", "column"),
        about="where each place looks: head mean, summed over parts of the map",
        section="attention",
        scope="layer",
        choice="self",
        is_passing=True,
    ),
):
    add_kind(_row)
