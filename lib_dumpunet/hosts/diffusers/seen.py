"""The results of a trace in a notebook: tensors, and pictures of them."""

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
    """Captured tensors on the CPU; images are counted over all calls in the ``with``.

    Features are "c h w" in the model's dtype; attention has the axes of its kind, see ``kinds.py``.
    """

    tensors: dict[Tag, Tensor] = field(default_factory=dict)
    problems: list[DumpUNetError] = field(default_factory=list)
    heat: dict[BatchRow, tuple[AttentionSum, ...]] = field(default_factory=dict)
    texts: dict[BatchRow, Tokens] = field(default_factory=dict)
    steered: Inputs | None = None

    def __getitem__(self, key: tuple[str, int] | tuple[str, int, int]) -> Tensor:
        """Return features: ``seen["OUT11", 20]``, or ``seen["OUT11", 20, image]`` for later images."""
        block, step, image = (*key, 0)[:3]
        return self._get(Tag(image, step, block))

    def picture(
        self, block: str, step: int, image: int = 0, color: ColorSettings | None = None
    ) -> Image.Image:
        """Draw all channels of a block in one picture."""
        tensor = self[block, step, image]
        return draw_features(tensor, color or ColorSettings(), tensor.shape[2] / tensor.shape[1])

    def average(self, block: str, step: int, image: int = 0, kind: str = "2-norm") -> Image.Image:
        """Draw the average map over channels: ``kind`` is "sum", "1-norm" or "2-norm"."""
        mean = average(self[block, step, image], kind) if kind in AVERAGES else None
        if mean is None:
            raise HostError(
                f"{kind!r} is not a kind of average map", remedy="Use sum, 1-norm or 2-norm.", field="kind"
            )
        return draw_features(mean, ColorSettings(method="white-black"), 1.0)

    def attention(
        self, block: str, step: int, image: int = 0, *, kind: Kind = "qk", layer: int = 0
    ) -> Tensor:
        """Return attention: ``kind`` is "qk" (head token h w), "k", "vqk", "self", "pca" or "update".

        ``layer`` is the index of the attention layer in its block, from 0; SD 1.x has one per block, SDXL up to ten.
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
                f"{kind!r} cannot be drawn here", remedy=f"Use {', '.join(sorted(drawn))}.", field="kind"
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
        """Return the token labels of an image's prompt; empty if it was encoded outside the ``with``.

        With steering, return those of the text that ``block`` reads in a step, or without a block of the main text.
        """
        return labels(self._tokens(_row(image, negative), block, step))

    def words(self, image: int = 0, *, negative: bool = False) -> tuple[str, ...]:
        """List the words of an image's prompt, over all texts that its blocks read."""
        row = _row(image, negative)
        texts = [self._text_of(row, part) for part in self.heat.get(row, ())] or [self._tokens(row)]
        return tuple(dict.fromkeys(word for tokens in texts for word in all_words(tokens)))

    def word(self, text: str, image: int = 0, *, negative: bool = False) -> Tensor:
        """Return the heatmap "h w" of a word or phrase: the mean over heads, and over layers and steps that read it.

        Raises:
            SettingsError: if the prompt has no such word.
        """
        row = _row(image, negative)
        if row not in self.heat:
            raise HostError(
                f"no words were captured for image {image}",
                remedy='Trace with attention="words"; the negative prompt has words only if it is used.',
            )
        texts = [(part, self._text_of(row, part)) for part in self.heat[row]]
        if not all(self._fits(part, tokens) for part, tokens in texts):
            raise HostError(
                "the prompt's tokens are not known: the U-Net read no text that was encoded in the with",
                remedy="Give the prompt to the pipeline as text, or the inputs from steer to trace as steered; "
                "weighted or mixed texts have no words.",
            )
        everything = [token for _, tokens in texts for token in (*tokens, BETWEEN)]
        find_word(everything, text, field="word")
        choice = WordChoice((text,), "word")
        found = [(part, word.columns) for part, tokens in texts for word in choice.find(tokens)]
        return mean_of(found)

    def word_picture(
        self, text: str, over: Image.Image | None = None, image: int = 0, *, negative: bool = False
    ) -> Image.Image:
        """Draw the heatmap of a word, over the pipeline's image if given."""
        return draw_overlay(over, self.word(text, image, negative=negative), text)

    def _tokens(self, row: BatchRow, block: str = "", step: int = 1) -> Tokens:
        if self.steered is not None:
            return self.steered.tokens(row, block, step)
        return self.texts.get(row, ())

    def _columns(self, tag: Tag, count: int) -> tuple[str, ...]:
        """Return the token labels of a layer's map."""
        row = BatchRow(tag.image, "cond")
        if self.steered is not None:
            return labels(self.steered.columns(row, tag.block, tag.step, count))
        return labels(self._tokens(row))

    def _text_of(self, row: BatchRow, part: AttentionSum) -> Tokens:
        """Return the tokens of a summed text."""
        return self._tokens(row) if self.steered is None else self.steered.known(part.text)

    def _fits(self, part: AttentionSum, tokens: Tokens) -> bool:
        """Return whether tokens fit the maps; a steered block's text may have been padded."""
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
        """Keep one capture; inserting into a dictionary is thread-safe."""
        if not KINDS[capture.tag.kind].is_passing:
            # Copies from a GPU are in pinned memory, which is scarce and should be released.
            pinned = capture.tensor.is_pinned()
            self.tensors[capture.tag] = capture.tensor.clone() if pinned else capture.tensor

    def close(self) -> None:
        """Sort the tensors by image, step and block."""
        self.tensors = dict(sorted(self.tensors.items()))


def _row(image: int, negative: bool) -> BatchRow:
    return BatchRow(image, "uncond" if negative else "cond")
