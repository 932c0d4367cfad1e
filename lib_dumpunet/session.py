"""Composition root: settings, a U-Net and a host become hooks, a queue and sinks for one run of the sampler."""

from __future__ import annotations

import logging
from collections.abc import Container, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace

from PIL import Image

from lib_dumpunet.blocks import spans
from lib_dumpunet.captures import AXES, Branch, Capture, Kind, Tag
from lib_dumpunet.errors import DumpUNetError, HostError, SettingsError
from lib_dumpunet.hooks.attention import AttentionWant, capture_attention
from lib_dumpunet.hooks.capture import Want, capture_blocks
from lib_dumpunet.hooks.heat import Heat
from lib_dumpunet.ports import Clock, Host, Row
from lib_dumpunet.prompt.points import Point, parse_points
from lib_dumpunet.prompt.selection import select_blocks, select_steps
from lib_dumpunet.prompt.texts import Texts, WordChoice, parse_words
from lib_dumpunet.prompt.words import all_words, labels
from lib_dumpunet.settings import AttentionSettings, DumpSettings, FeatureSettings, Settings
from lib_dumpunet.sinks.attention import AttentionSink
from lib_dumpunet.sinks.base import Fanout, Sink
from lib_dumpunet.sinks.components import ComponentsSink
from lib_dumpunet.sinks.dump import DumpRequest, DumpSink
from lib_dumpunet.sinks.heatmap import HeatmapSink
from lib_dumpunet.sinks.names import LAYER_KINDS, key_of
from lib_dumpunet.sinks.picture import PictureSink
from lib_dumpunet.unet.sites import Unet

log = logging.getLogger("dumpunet")

CAPTURED: dict[str, frozenset[Kind]] = {
    "k": frozenset({"k"}),
    "qk": frozenset({"qk"}),
    "vqk": frozenset({"vqk"}),
    "self": frozenset({"self", "gaze"}),
    "words": frozenset({"word"}),
}
"""What is captured for each choice of the settings."""

HEAT: frozenset[Kind] = frozenset({"word", "point"})


@dataclass(frozen=True)
class Subject:
    """What is generated: the request as dumps tell of it, the images' size in pixels, and the tokens of the prompts."""

    request: DumpRequest
    width: int
    height: int
    texts: Texts = field(default_factory=Texts)


@dataclass(frozen=True)
class Plan:
    """Settings resolved against a model and a number of steps; making one finds every mistake before sampling."""

    features: Want | None = None
    attention: AttentionWant | None = None
    attention_steps: tuple[int, ...] = ()
    words: Mapping[Branch, WordChoice] = field(default_factory=dict)
    points: tuple[Point, ...] = ()
    sinks: tuple[Sink, ...] = ()


@dataclass
class Recording:
    """Captures on their way from the hooks to the sinks, and the running sums of words and points."""

    queue: Fanout
    heat: Heat


class Session:
    """A run that is being watched; ``problems`` is complete once the run's ``with`` has ended."""

    def __init__(self, plan: Plan, texts: Texts) -> None:
        self.problems: list[DumpUNetError] = []
        self._plan, self._texts = plan, texts
        self._heatmaps = [sink for sink in plan.sinks if isinstance(sink, HeatmapSink)]

    @contextmanager
    def watch(self, unet: Unet, clock: Clock) -> Iterator[None]:
        """Put the hooks on; words of images that never came out are drawn without them at the end."""
        with record(unet, self._plan, clock, self.problems) as self._recording:
            try:
                yield
            finally:
                for image in self._recording.heat.images:
                    self.finish(image, None)

    def finish(self, image: int, picture: Image.Image | None) -> None:
        """Take an image that has come out: its words and points are complete, and are laid over it.

        A fault is kept in ``problems``: the next image must come out.
        """
        try:
            captures = list(self._heat_of(image))
            for sink in self._heatmaps:
                sink.expect(image, picture, len(captures))
            for capture in captures:
                self._recording.queue.put(capture)
        except DumpUNetError as error:
            self.problems.append(error)
        except Exception as error:
            log.debug("heat of image %d failed", image, exc_info=True)
            self.problems.append(HostError(f"words and points of image {image} could not be drawn ({error})"))
        finally:
            self._recording.heat.forget(image)

    def _heat_of(self, image: int) -> Iterator[Capture]:
        heat = self._recording.heat
        for branch, choice in self._plan.words.items():
            row = Row(image, branch)
            maps, tokens = heat.mean(row, "word"), self._texts.tokens(row)
            if maps is None:
                continue
            if len(maps) != len(tokens):
                raise HostError(
                    f"the text has {len(tokens)} tokens where attention has {len(maps)}, so words cannot be found"
                )
            for word in choice.find(tokens):
                tag = Tag(image, 0, "", "word", 0, word.text, branch)
                yield Capture(tag, maps[list(word.columns)].mean(0))
        maps = heat.mean(Row(image, "cond"), "point")
        if maps is not None:
            for point, looks in zip(self._plan.points, maps, strict=True):
                yield Capture(Tag(image, 0, "", "point", 0, point.name), looks)


@contextmanager
def open_session(unet: Unet, settings: Settings, host: Host, subject: Subject) -> Iterator[Session]:
    """Watch what the host samples inside the ``with``, as ``settings`` ask.

    Raises:
        SettingsError: for a mistake in the settings, before anything is hooked. What goes wrong later is in
            ``problems`` and does not disturb the sampler.
        UnsupportedModelError: if attention is asked for and the model's cannot be read.
    """
    session = Session(make_plan(unet, settings, host, subject), subject.texts)
    with session.watch(unet, host.clock):
        yield session


@contextmanager
def record(unet: Unet, plan: Plan, clock: Clock, problems: list[DumpUNetError]) -> Iterator[Recording]:
    """Let captures flow from the hooks to the sinks; ``problems`` gets what went wrong on the way."""
    queue = Fanout(plan.sinks)
    try:
        with ExitStack() as hooks:
            if plan.features is not None:
                hooks.enter_context(capture_blocks(unet, plan.features, clock, queue.put, problems.append))
            heat = Heat()
            if plan.attention is not None:
                heat = hooks.enter_context(
                    capture_attention(unet, plan.attention, clock, queue.put, problems.append)
                )
            yield Recording(queue, heat)
    finally:
        try:
            queue.close()
        finally:
            problems.extend(queue.problems)


def make_plan(unet: Unet, settings: Settings, host: Host, subject: Subject) -> Plan:
    """Resolve the settings.

    Raises:
        SettingsError: for the first mistake.
    """
    plan = Plan()
    if settings.features.enabled:
        plan = _with_features(plan, unet, settings.features, host, subject)
    if settings.attention.enabled:
        plan = _with_attention(plan, unet, settings.attention, host, subject)
    sinks = (*plan.sinks, *_dump_sinks(plan, unet, settings, subject))
    return replace(plan, sinks=(*components_of(plan.attention, settings.attention.dump), *sinks))


def components_of(want: AttentionWant | None, dump: DumpSettings | None = None) -> tuple[Sink, ...]:
    """Make the sink that has to stand before all others where self-attention is looked at; else nothing."""
    if want is None or "gaze" not in want.kinds:
        return ()
    return (ComponentsSink(dump.path if dump is not None and dump.enabled else None),)


def _with_features(plan: Plan, unet: Unet, features: FeatureSettings, host: Host, subject: Subject) -> Plan:
    blocks = select_blocks(features.layers, unet.order)
    steps = frozenset(select_steps(features.steps, subject.request.steps))
    sink = PictureSink(features, subject.width / subject.height, host.show)
    return replace(plan, features=Want(blocks, steps), sinks=(*plan.sinks, sink))


def _with_attention(
    plan: Plan, unet: Unet, attention: AttentionSettings, host: Host, subject: Subject
) -> Plan:
    blocks = attention_blocks(unet, attention.layers)
    steps = select_steps(attention.steps, subject.request.steps, field="Attention steps")
    words = choose_words(attention, subject.texts)
    points = parse_points(attention.points, (subject.width, subject.height))
    asked = [CAPTURED[kind] for kind in attention.kinds if kind != "words"]
    if words:
        asked.append(frozenset({"word"}))
    if points:
        asked.append(frozenset({"point"}))
    kinds = frozenset[Kind]().union(*asked)
    want = AttentionWant(
        blocks, frozenset(steps), kinds, attention.lattice, tuple(p.place for p in points), tuple(words)
    )
    ratio = subject.width / subject.height
    pictures = AttentionSink(attention, lambda image: _labels(subject.texts, image), ratio, host.show)
    sinks: tuple[Sink, ...] = (pictures,)
    if words or points:
        about = {"Layer Name": spans(blocks), "Feature Steps": attention.steps.strip() or f"1-{len(steps)}"}
        sinks += (HeatmapSink(about, host.show),)
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
        log.warning("%s: %s have no attention layer and are skipped", field, skipped)
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
        choices["cond"].check(texts.cond)
    if attention.negative_words.strip(" ,"):
        choices["uncond"] = parse_words(attention.negative_words, field="Negative words")
        if not texts.uncond:
            raise SettingsError(
                "the negative prompt is not used",
                remedy="It is where CFG Scale is above 1.",
                field="Negative words",
            )
        if not any(map(all_words, texts.uncond)):
            raise SettingsError(
                "the negative prompt has no words", remedy="Write some.", field="Negative words"
            )
        choices["uncond"].check(texts.uncond)
    return choices


def _labels(texts: Texts, image: int) -> tuple[str, ...]:
    return labels(texts.tokens(Row(image, "cond")))


def _dump_sinks(plan: Plan, unet: Unet, settings: Settings, subject: Subject) -> list[DumpSink]:
    """Make a sink for each folder and format; features and attention share one where they have the same."""
    targets: dict[tuple[str, str], frozenset[Kind]] = {}
    wanted: list[tuple[DumpSettings, frozenset[Kind]]] = []
    if plan.features is not None:
        wanted.append((settings.features.dump, frozenset({"feature"})))
    if plan.attention is not None:
        wanted.append((settings.attention.dump, frozenset(AXES) - {"feature", "gaze"}))
        if plan.attention.kinds & HEAT:
            wanted.append((settings.attention.heat, HEAT))
    for dump, kinds in wanted:
        if dump.enabled:
            target = (dump.path, dump.format)
            targets[target] = targets.get(target, frozenset()) | kinds
    return [
        DumpSink(path, file_format, _dump_request(plan, unet, subject, kinds), kinds)
        for (path, file_format), kinds in targets.items()
    ]


def _dump_request(plan: Plan, unet: Unet, subject: Subject, kinds: frozenset[Kind]) -> DumpRequest:
    """Complete the request by what comes for each image and step, and by what attention is of."""
    request = subject.request
    expected: dict[str, Container[int]] = {}
    if plan.features is not None and "feature" in kinds:
        expected |= dict.fromkeys(plan.features.blocks, plan.features.steps)
    if plan.attention is None or kinds == {"feature"}:
        return replace(request, expected=expected)
    want = plan.attention
    steady = [kind for kind in LAYER_KINDS if kind in want.kinds & kinds]
    for layer in (layer for site in unet.sites if site.block in want.blocks for layer in site.layers):
        tags = (Tag(0, 1, layer.block, kind, layer.number) for kind in steady)
        expected |= dict.fromkeys(map(key_of, tags), want.steps)
    sides = ((request.prompts, subject.texts.cond), (request.negative_prompts, subject.texts.uncond))
    tokens = {text: labels(t) for texts, side in sides for text, t in zip(texts, side, strict=False)}
    return replace(
        request,
        expected=expected,
        tokens=tokens,
        attention={"blocks": want.blocks, "steps": plan.attention_steps},
    )
