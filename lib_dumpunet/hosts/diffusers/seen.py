"""What a trace has kept, for a notebook: tensors, and pictures of them."""

from __future__ import annotations

from dataclasses import dataclass, field

from PIL import Image
from torch import Tensor

from lib_dumpunet.captures import Capture, Tag
from lib_dumpunet.errors import DumpUNetError, HostError
from lib_dumpunet.hooks.sums import AttentionSum, mean_of
from lib_dumpunet.hosts.diffusers.steered import Inputs
from lib_dumpunet.image.average import average
from lib_dumpunet.image.draw import draw_features
from lib_dumpunet.image.overlay import draw_overlay
from lib_dumpunet.kinds import FEATURE, KINDS, Kind, kinds_of_section
from lib_dumpunet.ports import BatchRow
from lib_dumpunet.prompt.texts import BETWEEN, Tokens, WordChoice
from lib_dumpunet.prompt.words import all_words, find_word, labels
from lib_dumpunet.settings import AVERAGES, AttentionSettings, ColorSettings
from lib_dumpunet.sinks.base import Sink
from lib_dumpunet.sinks.drawing import DRAWINGS, Style


@dataclass
class Trace(Sink):
    """What was seen: tensors on the CPU; images count over all calls in the ``with``.

    Features are "c h w" in the model's dtype; the axes of attention are those of its kind, see ``kinds.py``.
    """

    tensors: dict[Tag, Tensor] = field(default_factory=dict)
    problems: list[DumpUNetError] = field(default_factory=list)
    heat: dict[BatchRow, tuple[AttentionSum, ...]] = field(default_factory=dict)
    texts: dict[BatchRow, Tokens] = field(default_factory=dict)
    steered: Inputs | None = None

    def __getitem__(self, key: tuple[str, int] | tuple[str, int, int]) -> Tensor:
        """Get features by ``seen["OUT11", 20]``, or ``seen["OUT11", 20, image]`` for another than the first image."""
        block, step, image = (*key, 0)[:3]
        return self._get(Tag(image, step, block))

    def picture(
        self, block: str, step: int, image: int = 0, color: ColorSettings | None = None
    ) -> Image.Image:
        """Draw all channels of a block in one picture."""
        tensor = self[block, step, image]
        return draw_features(tensor, color or ColorSettings(), tensor.shape[2] / tensor.shape[1])

    def average(self, block: str, step: int, image: int = 0, kind: str = "2-norm") -> Image.Image:
        """Draw the average map over the channels: ``kind`` is "sum", "1-norm" or "2-norm"."""
        mean = average(self[block, step, image], kind) if kind in AVERAGES else None
        if mean is None:
            raise HostError(
                f"{kind!r} makes no average map", remedy="Use sum, 1-norm or 2-norm.", field="kind"
            )
        return draw_features(mean, ColorSettings(method="white-black"), 1.0)

    def attention(
        self, block: str, step: int, image: int = 0, *, kind: Kind = "qk", layer: int = 0
    ) -> Tensor:
        """Get attention: ``kind`` is "qk" (head token h w), "k", "vqk", "self", "pca" or "update".

        ``layer`` counts the attention layers of a block from 0; SD 1.x has one in each, SDXL up to ten.
        """
        return self._get(Tag(image, step, block, kind, layer))

    def attention_picture(
        self,
        block: str,
        step: int,
        image: int = 0,
        *,
        kind: Kind = "qk",
        layer: int = 0,
        color: ColorSettings | None = None,
    ) -> Image.Image:
        """Draw attention: for "qk" a column for each token and a row for each head."""
        drawn = [name for name in kinds_of_section("attention") if KINDS[name].drawing]
        if kind not in drawn:
            raise HostError(
                f"{kind!r} is not drawn here", remedy=f"Use {', '.join(sorted(drawn))}.", field="kind"
            )
        tag = Tag(image, step, block, kind, layer)
        tensor = self._get(tag)
        settings = AttentionSettings(color=color or ColorSettings())
        style = Style(settings, tensor.shape[-1] / tensor.shape[-2], lambda tag, _: self.tokens(tag.image))
        *_, (_, _, picture) = DRAWINGS[KINDS[kind].drawing](tag, tensor, style)
        return picture

    def tokens(
        self, image: int = 0, *, negative: bool = False, block: str = "", step: int = 1
    ) -> tuple[str, ...]:
        """Tell the text of each column of an image's prompt; nothing if the prompt was encoded elsewhere.

        Where blocks are steered, those of the text that ``block`` reads in a step, or of the main text.
        """
        return labels(self._tokens(_row(image, negative), block, step))

    def words(self, image: int = 0, *, negative: bool = False) -> tuple[str, ...]:
        """List the words of an image's prompt, of all that its blocks read."""
        row = _row(image, negative)
        texts = [self._text_of(row, part) for part in self.heat.get(row, ())] or [self._tokens(row)]
        return tuple(dict.fromkeys(word for tokens in texts for word in all_words(tokens)))

    def word(self, text: str, image: int = 0, *, negative: bool = False) -> Tensor:
        """Get the heatmap "h w" of a word or phrase: mean of heads, and of all layers and steps that have read it.

        Raises:
            SettingsError: if the prompt has no such word.
        """
        row = _row(image, negative)
        if row not in self.heat:
            raise HostError(
                f"no words were seen of image {image}",
                remedy='Trace with attention="words"; the negative prompt has words where it is used.',
            )
        texts = [(part, self._text_of(row, part)) for part in self.heat[row]]
        if not all(self._fits(part, tokens) for part, tokens in texts):
            raise HostError(
                "the prompt's tokens are not known: no text that was encoded in the with is what the U-Net read",
                remedy="Give the prompt to the pipeline as text, or what steer has given to trace as steered; texts "
                "that are weighed or mixed have no words.",
            )
        everything = [token for _, tokens in texts for token in (*tokens, BETWEEN)]
        find_word(everything, text, field="word")
        choice = WordChoice((text,), "word")
        found = [(part, word.columns) for part, tokens in texts for word in choice.find(tokens)]
        return mean_of(found)

    def word_picture(
        self, text: str, over: Image.Image | None = None, image: int = 0, *, negative: bool = False
    ) -> Image.Image:
        """Draw the heatmap of a word, laid over the image that the pipeline gave."""
        return draw_overlay(over, self.word(text, image, negative=negative), text)

    def _tokens(self, row: BatchRow, block: str = "", step: int = 1) -> Tokens:
        if self.steered is not None:
            return self.steered.tokens(row, block, step)
        return self.texts.get(row, ())

    def _columns(self, tag: Tag, count: int) -> tuple[str, ...]:
        """Name the columns of a layer's map."""
        row = BatchRow(tag.image, "cond")
        if self.steered is not None:
            return labels(self.steered.columns(row, tag.block, tag.step, count))
        return labels(self._tokens(row))

    def _text_of(self, row: BatchRow, part: AttentionSum) -> Tokens:
        """Return the tokens of what was summed up."""
        return self._tokens(row) if self.steered is None else self.steered.known(part.text)

    def _fits(self, part: AttentionSum, tokens: Tokens) -> bool:
        """Return whether tokens are those of the maps; a steered block's text may have been filled up."""
        columns = len(part.total)
        return len(tokens) == columns or (self.steered is not None and 0 < len(tokens) < columns)

    def _get(self, tag: Tag) -> Tensor:
        if tag not in self.tensors:
            what = "" if tag.kind == FEATURE else f" {tag.kind}"
            layer = f", layer {tag.layer}" if tag.layer else ""
            raise KeyError(
                f"nothing was captured for{what} block {tag.block}, step {tag.step}, image {tag.image}{layer}; {self}"
            )
        return self.tensors[tag]

    def __str__(self) -> str:
        blocks = dict.fromkeys(tag.block for tag in self.tensors)
        steps = sorted({tag.step for tag in self.tensors})
        images = len({tag.image for tag in self.tensors})
        return f"{len(self.tensors)} tensors: blocks {', '.join(blocks)}, steps {steps}, {images} image(s)"

    def accept(self, capture: Capture) -> None:
        """Keep one capture; a dictionary's own lock is enough for that."""
        if not KINDS[capture.tag.kind].is_passing:
            # Pinned memory, where copies from an accelerator arrive, is scarce, and is to be used again.
            pinned = capture.tensor.is_pinned()
            self.tensors[capture.tag] = capture.tensor.clone() if pinned else capture.tensor

    def close(self) -> None:
        """Put the tensors in order of image, step and block."""
        self.tensors = dict(sorted(self.tensors.items()))


def _row(image: int, negative: bool) -> BatchRow:
    return BatchRow(image, "uncond" if negative else "cond")
