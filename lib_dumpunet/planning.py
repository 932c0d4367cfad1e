"""Settings resolved against a model, prompts and a number of steps: every mistake is found here, before sampling."""

from __future__ import annotations

import logging
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from lib_dumpunet.blocks import spans
from lib_dumpunet.captures import PLAIN, Branch, Tag
from lib_dumpunet.early import require_brackets, require_shown
from lib_dumpunet.errors import SettingsError
from lib_dumpunet.explorer.document import About
from lib_dumpunet.explorer.sink import ExplorerSink
from lib_dumpunet.hooks.attention import require_readable
from lib_dumpunet.hooks.calls import AttentionWant
from lib_dumpunet.hooks.capture import Want
from lib_dumpunet.hooks.steer import Steering
from lib_dumpunet.kinds import KINDS, Kind, kinds_of_choice, kinds_of_section, modes, of_image
from lib_dumpunet.ports import Host, Page, Row
from lib_dumpunet.prompt.points import Point, parse_points
from lib_dumpunet.prompt.selection import select_blocks, select_steps
from lib_dumpunet.prompt.texts import Texts, WordChoice, parse_words
from lib_dumpunet.prompt.words import all_words, labels
from lib_dumpunet.settings import (
    AttentionSettings,
    DifferenceSettings,
    DumpSettings,
    ExplorerSettings,
    FeatureSettings,
    Settings,
)
from lib_dumpunet.sinks.base import Sink
from lib_dumpunet.sinks.components import ComponentsSink
from lib_dumpunet.sinks.difference import DifferenceSink
from lib_dumpunet.sinks.drawing import Style
from lib_dumpunet.sinks.dump import DumpRequest, DumpSink
from lib_dumpunet.sinks.heatmap import HeatmapSink
from lib_dumpunet.sinks.names import key_of
from lib_dumpunet.sinks.picture import PictureSink, Show
from lib_dumpunet.unet.sites import Unet

log = logging.getLogger("dumpunet")


@dataclass(frozen=True)
class Subject:
    """What is generated.

    Attributes:
        request: what dumps tell of it.
        width, height: of the images, in pixels.
        texts: what blocks read, and its tokens.
        steering: the texts in the form that blocks read them; None where no prompt has any per block.
        hires: the same two of a hires pass, whose prompts and steps may be others; None says that they are not.
    """

    request: DumpRequest
    width: int
    height: int
    texts: Texts = field(default_factory=Texts)
    steering: Steering | None = None
    hires: tuple[Texts, Steering | None] | None = None

    def texts_of(self, *, hires: bool) -> Texts:
        """Give the texts of a pass."""
        return self.hires[0] if hires and self.hires is not None else self.texts

    def parameters(self, image: int) -> dict[str, str]:
        """Tell what an image is made of, by label."""
        told = self.request.about_image(image)
        named = {
            "Prompt": told["prompt"],
            "Negative prompt": told["negative_prompt"],
            "Seed": told["seed"],
            "Sampler": self.request.sampler,
            "CFG scale": None if self.request.guidance is None else f"{self.request.guidance:g}",
            "Steps": self.request.steps,
            "Size": f"{self.width}x{self.height}",
            "Model": model_name(self.request.model),
        }
        return {label: str(value) for label, value in named.items() if value not in (None, "")}

    def columns(self, tag: Tag, count: int) -> tuple[str, ...]:
        """Name the ``count`` columns of what an attention layer has read; nothing if they are not known."""
        texts = self.texts_of(hires=tag.hires)
        return labels(texts.columns(Row(tag.image, "cond"), tag.block, tag.step, count))

    @property
    def ratio(self) -> float:
        """Width over height."""
        return self.width / self.height


def model_name(model: str) -> str:
    """Shorten a path: what is shown to others need not tell how this computer's folders are called."""
    path = Path(model)
    return "/".join(path.parts[-2:]) if path.is_absolute() else model


@dataclass(frozen=True)
class Plan:
    """What to read in a run, what to steer, and where what was read goes."""

    features: Want | None = None
    difference: Want | None = None
    attention: AttentionWant | None = None
    attention_steps: tuple[int, ...] = ()
    words: Mapping[Branch, WordChoice] = field(default_factory=dict)
    points: tuple[Point, ...] = ()
    steering: Steering | None = None
    sinks: tuple[Sink, ...] = ()


def make_plan(unet: Unet, settings: Settings, host: Host, subject: Subject) -> Plan:
    """Resolve the settings; pictures and pages go to ``host``.

    Raises:
        SettingsError: for the first mistake.
    """
    plan, show = Plan(steering=subject.steering), host.show
    if settings.features.enabled:
        plan = _with_features(plan, unet, settings.features, show, subject)
    if settings.attention.enabled:
        plan = _with_attention(plan, unet, settings.attention, show, subject)
    if settings.difference.enabled:
        plan = _with_difference(plan, unet, settings.difference, show, subject)
    require_shown(settings)
    dumps = _dump_sinks(plan, unet, settings, subject)  # makes the folders
    # What makes captures out of others stands before those that take them.
    makers = components_of(plan.attention, settings.attention.dump)
    if plan.difference is not None:
        makers += (DifferenceSink(_folder(settings.difference.dump)),)
    pages: tuple[Sink, ...] = ()
    if settings.explorer.enabled:
        pages = (_explorer(plan, unet, settings, host.write_page, subject),)
    pictures = () if settings.explorer.enabled and settings.explorer.alone else plan.sinks
    return replace(plan, sinks=(*makers, *pictures, *pages, *dumps))


def needs_table(settings: Settings) -> bool:
    """Tell whether the request's block table is going to be told."""
    return is_dumping(settings) or settings.explorer.enabled


def of_plain_run(settings: Settings) -> Settings | None:
    """Tell what is asked of the run without per-block prompts; None if nothing. Its dumps have their own folder."""
    looks = settings.features.enabled or settings.attention.enabled
    if not (settings.difference.enabled and settings.difference.runs == "both" and looks):
        return None
    same = replace(settings, difference=DifferenceSettings(), explorer=ExplorerSettings())
    return same.with_dumps(lambda dump: replace(dump, path=str(Path(dump.path, PLAIN))))


def is_dumping(settings: Settings) -> bool:
    """Tell whether any tensor is to be written."""
    dumps = (
        settings.features.dump,
        settings.difference.dump,
        settings.attention.dump,
        settings.attention.heat,
    )
    return any(dump.enabled for dump in dumps)


def hires_plan(plan: Plan, subject: Subject) -> Plan:
    """Change a plan to that of the hires pass."""
    if subject.hires is None:
        return plan
    texts, steering = subject.hires
    attention = plan.attention and replace(plan.attention, text_of=texts.text)
    return replace(plan, steering=steering, attention=attention)


def _explorer(
    plan: Plan, unet: Unet, settings: Settings, write: Callable[[Page], None], subject: Subject
) -> ExplorerSink:
    """Make the sink that writes pages."""
    average = settings.difference.average if plan.features is None else settings.features.average
    about = About(
        order=unet.order.names,
        attending=tuple(site.block for site in unet.sites if site.layers),
        table=subject.request.blocks,
        colors={mode: getattr(settings, row.section).color for mode, row in modes().items()},
        average="2-norm" if average == "disable" else average,
        parameters=subject.parameters,
        plan=lambda hires: subject.texts_of(hires=hires).plan,
    )
    return ExplorerSink(about, subject.columns, settings.explorer.limit, write)


def components_of(want: AttentionWant | None, dump: DumpSettings | None = None) -> tuple[Sink, ...]:
    """Make the sink that has to stand before all others where self-attention is looked at; else nothing."""
    if want is None or "pooled_self" not in want.kinds:
        return ()
    return (ComponentsSink(_folder(dump)),)


def _folder(dump: DumpSettings | None) -> str | None:
    """Choose the folder of large temporary files: where dumps go, if there are any."""
    return dump.path if dump is not None and dump.enabled else None


def _with_features(plan: Plan, unet: Unet, features: FeatureSettings, show: Show, subject: Subject) -> Plan:
    blocks = select_blocks(features.layers, unet.order)
    steps = frozenset(select_steps(features.steps, subject.request.steps))
    return replace(
        plan,
        features=Want(blocks, steps),
        sinks=(*plan.sinks, PictureSink("features", Style(features, subject.ratio), show)),
    )


def _with_difference(
    plan: Plan, unet: Unet, difference: DifferenceSettings, show: Show, subject: Subject
) -> Plan:
    written = subject.texts.plan
    require_brackets(() if written is None else (*written.cond, *written.uncond))
    blocks = select_blocks(difference.layers, unet.order, field="Difference layers")
    steps = frozenset(select_steps(difference.steps, subject.request.steps, field="Difference steps"))
    return replace(
        plan,
        difference=Want(blocks, steps, "steered"),
        sinks=(*plan.sinks, PictureSink("difference", Style(difference, subject.ratio), show)),
    )


def _with_attention(
    plan: Plan, unet: Unet, attention: AttentionSettings, show: Show, subject: Subject
) -> Plan:
    blocks = attention_blocks(unet, attention.layers)
    steps = select_steps(attention.steps, subject.request.steps, field="Attention steps")
    words = choose_words(attention, subject.texts)
    points = parse_points(attention.points, (subject.width, subject.height))
    asked = [kinds_of_choice(choice) for choice in attention.kinds if choice != "words"]
    if words:
        asked.append(frozenset({"word"}))
    if points:
        asked.append(frozenset({"point"}))
    kinds = frozenset[Kind]().union(*asked)
    want = AttentionWant(
        blocks,
        frozenset(steps),
        kinds,
        attention.lattice,
        tuple(point.place for point in points),
        tuple(words),
        subject.texts.text,
    )
    require_readable(unet, want)

    pictures = PictureSink("attention", Style(attention, subject.ratio, subject.columns), show)
    sinks: tuple[Sink, ...] = (pictures,)
    if words or points:
        about = {"Layer Name": spans(blocks), "Feature Steps": attention.steps.strip() or f"1-{len(steps)}"}
        sinks += (HeatmapSink(about, show),)
    return replace(
        plan,
        attention=want,
        attention_steps=steps,
        words=words,
        points=points,
        sinks=(*plan.sinks, *sinks),
    )


def attention_blocks(unet: Unet, text: str, *, field: str = "Attention layers") -> tuple[str, ...]:
    """Choose blocks that have attention layers; of those named, the others are skipped with one message.

    Raises:
        SettingsError: if none is left.
    """
    chosen, kept = require_attention(unet, text, field=field)
    if kept != chosen:
        skipped = spans(tuple(block for block in chosen if block not in kept))
        log.warning("%s: no attention layer in %s, left out", field, skipped)
    return kept


def require_attention(
    unet: Unet, text: str, *, field: str = "Attention layers"
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Tell the chosen blocks, and those of them that have attention layers.

    Raises:
        SettingsError: if none has.
    """
    able = tuple(site.block for site in unet.sites if site.layers)
    chosen = select_blocks(text, unet.order, field=field) if text.strip() else able
    kept = tuple(block for block in chosen if block in able)
    if not kept:
        problem = f"{spans(chosen)}: no attention layer" if able else "the model has no attention layers"
        remedy = f"Choose among {spans(able)}." if able else "Choose another model."
        raise SettingsError(problem, remedy=remedy, field=field)
    return chosen, kept


def choose_words(attention: AttentionSettings, texts: Texts) -> dict[Branch, WordChoice]:
    """Read the words, and make sure that they are in the prompts.

    Raises:
        SettingsError: if one is not.
    """
    choices: dict[Branch, WordChoice] = {}
    if "words" in attention.kinds or attention.words.strip():
        choices["cond"] = parse_words(attention.words, field="Words")
        choices["cond"].check(texts.of("cond"))
    if attention.negative_words.strip(" ,"):
        choices["uncond"] = parse_words(attention.negative_words, field="Negative words")
        negative = texts.of("uncond")
        if not negative:
            raise SettingsError(
                "the negative prompt is not used",
                remedy="It is where CFG Scale is above 1.",
                field="Negative words",
            )
        if not any(map(all_words, negative)):
            raise SettingsError(
                "the negative prompt has no words", remedy="Write some.", field="Negative words"
            )
        choices["uncond"].check(negative)
    return choices


def _dump_sinks(plan: Plan, unet: Unet, settings: Settings, subject: Subject) -> list[DumpSink]:
    """Make a sink for each folder and format; whatever has the same shares one."""
    targets: dict[tuple[str, str], frozenset[Kind]] = {}
    wanted: list[tuple[DumpSettings, frozenset[Kind]]] = []
    if plan.features is not None:
        wanted.append((settings.features.dump, kinds_of_section("features")))
    if plan.difference is not None:
        wanted.append((settings.difference.dump, kinds_of_section("difference")))
    if plan.attention is not None:
        wanted.append((settings.attention.dump, kinds_of_section("attention")))
        heat = frozenset(filter(of_image, plan.attention.kinds))
        if heat:
            wanted.append((settings.attention.heat, heat))
    for dump, kinds in wanted:
        if dump.enabled:
            target = (dump.path, dump.format)
            targets[target] = targets.get(target, frozenset()) | kinds
    return [
        DumpSink(path, file_format, _dump_request(plan, unet, subject, kinds), kinds)
        for (path, file_format), kinds in targets.items()
    ]


def _token_labels(texts: Texts) -> dict[str, tuple[str, ...]]:
    """Name the columns of each text; those of "" are what others are filled up with."""
    return {text: labels(tokens) for text, tokens in {**texts.tokens, "": texts.filler}.items() if tokens}


def _dump_request(plan: Plan, unet: Unet, subject: Subject, kinds: frozenset[Kind]) -> DumpRequest:
    """Complete the request by what comes for each image and step, and by what attention is of."""
    request, want = subject.request, plan.attention
    expected: dict[str, Container[int]] = {}
    if plan.features is not None and "feature" in kinds:
        expected |= dict.fromkeys(plan.features.blocks, plan.features.steps)
    if plan.difference is not None and "difference" in kinds:
        tags = (Tag(0, 1, block, "difference") for block in plan.difference.blocks)
        expected |= dict.fromkeys(map(key_of, tags), plan.difference.steps)
    if want is None or not kinds & kinds_of_section("attention"):
        return replace(request, expected=expected)
    written = [KINDS[kind] for kind in want.kinds & kinds if not KINDS[kind].is_passing]
    for site in unet.sites:
        if site.block in want.blocks:
            counts = {"block": 1, "layer": len(site.layers), "image": 0}
            tags = (Tag(0, 1, site.block, row.name, n) for row in written for n in range(counts[row.scope]))
            expected |= dict.fromkeys(map(key_of, tags), want.steps)
    return replace(
        request,
        expected=expected,
        text_of=lambda tag: subject.texts_of(hires=tag.hires).text(
            Row(tag.image, tag.branch), tag.block, tag.step
        ),
        tokens=_token_labels(subject.texts) | _token_labels(subject.texts_of(hires=True)),
        attention={"blocks": want.blocks, "steps": plan.attention_steps},
    )
