"""Make the sinks for a plan and a host: they draw, write and collect what the hooks capture."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, field, replace
from pathlib import Path

from lib_dumpunet.blocks import spans
from lib_dumpunet.captures import Tag
from lib_dumpunet.errors import within
from lib_dumpunet.explorer.about import About
from lib_dumpunet.explorer.sink import ExplorerSink
from lib_dumpunet.hooks.interventions import Intervention, TextPerBlock
from lib_dumpunet.hooks.steer import Steering
from lib_dumpunet.kinds import KINDS, Kind, kinds_of_section, modes, of_image
from lib_dumpunet.plan import Plan
from lib_dumpunet.ports import BatchRow, Host
from lib_dumpunet.prompt.texts import Texts
from lib_dumpunet.prompt.words import labels
from lib_dumpunet.resolve import Prompts
from lib_dumpunet.settings import DumpSettings
from lib_dumpunet.sinks.base import Sink
from lib_dumpunet.sinks.components import ComponentsSink
from lib_dumpunet.sinks.difference import DifferenceSink
from lib_dumpunet.sinks.drawing import Style
from lib_dumpunet.sinks.dump import DumpSink
from lib_dumpunet.sinks.heatmap import HeatmapSink
from lib_dumpunet.sinks.names import key_of
from lib_dumpunet.sinks.picture import PictureSink
from lib_dumpunet.sinks.request import DumpRequest


@dataclass(frozen=True)
class Generation:
    """What is being generated.

    Attributes:
        request: metadata for dumps.
        width, height: of the images, in pixels.
        texts: the texts that blocks read, and their tokens.
        steering: the embeddings that blocks read; None if no prompt has brackets.
        hires: texts and steering of the hires pass; None if they are the same.
    """

    request: DumpRequest
    width: int
    height: int
    texts: Texts = field(default_factory=Texts)
    steering: Steering | None = None
    hires: tuple[Texts, Steering | None] | None = None

    def texts_of(self, *, hires: bool) -> Texts:
        """Return the texts of a pass."""
        return self.hires[0] if hires and self.hires is not None else self.texts

    def interventions(self, *, hires: bool) -> tuple[Intervention, ...]:
        """Return the interventions of a pass."""
        steering = self.hires[1] if hires and self.hires is not None else self.steering
        return () if steering is None else (TextPerBlock(steering),)

    @property
    def prompts(self) -> Prompts:
        """The prompts, steps and size that settings are resolved against."""
        written = self.texts.plan
        templates = () if written is None else (*written.cond, *written.uncond)
        return Prompts(templates, self.request.steps, (self.width, self.height), self.texts)

    def parameters(self, image: int) -> dict[str, str]:
        """Return the generation parameters of an image by label, such as Seed."""
        about = self.request.about_image(image)
        named = {
            "Prompt": about["prompt"],
            "Negative prompt": about["negative_prompt"],
            "Seed": about["seed"],
            "Sampler": self.request.sampler,
            "CFG scale": None if self.request.guidance is None else f"{self.request.guidance:g}",
            "Steps": self.request.steps,
            "Size": f"{self.width}x{self.height}",
            "Model": model_name(self.request.model),
        }
        return {label: str(value) for label, value in named.items() if value not in (None, "")}

    def columns(self, tag: Tag, count: int) -> tuple[str, ...]:
        """Return labels for the ``count`` tokens that an attention layer reads; empty if they are not known."""
        texts = self.texts_of(hires=tag.hires)
        return labels(texts.columns(BatchRow(tag.image, "cond"), tag.block, tag.step, count))

    @property
    def ratio(self) -> float:
        """Width over height."""
        return self.width / self.height


def model_name(model: str) -> str:
    """Shorten an absolute path to its last two parts, so that shared results do not reveal this computer's folders."""
    path = Path(model)
    return "/".join(path.parts[-2:]) if path.is_absolute() else model


def assemble(plan: Plan, host: Host, generation: Generation) -> tuple[Sink, ...]:
    """Make the sinks of a plan and create the folders for dumps; pictures and pages go to the host.

    Raises:
        SettingsError: if a folder cannot be used.
        HostError: if no temporary file can be created.
    """
    settings = plan.settings
    dumps = _dump_sinks(plan, generation)  # first: it creates the folders
    # Sinks that make new captures come before the sinks that take them.
    makers = components_of(plan)
    if plan.difference is not None:
        makers += (DifferenceSink(_folder(settings.difference.dump)),)
    pages: tuple[Sink, ...] = ()
    if settings.explorer.enabled:
        about = _about(plan, generation)
        pages = (ExplorerSink(about, generation.columns, settings.explorer.limit, host.write_page),)
    is_alone = settings.explorer.enabled and settings.explorer.alone
    return (*makers, *(() if is_alone else _pictures(plan, host, generation)), *pages, *dumps)


def components_of(plan: Plan) -> tuple[Sink, ...]:
    """Make the sink that computes principal components, if self-attention is captured; it must come first."""
    if plan.attention is None or "pooled_self" not in plan.attention.kinds:
        return ()
    return (ComponentsSink(_folder(plan.settings.attention.dump)),)


def _folder(dump: DumpSettings) -> str | None:
    """Return the folder for large temporary files: that of the dumps; None if nothing is dumped."""
    return dump.path if dump.enabled else None


def _pictures(plan: Plan, host: Host, generation: Generation) -> tuple[Sink, ...]:
    settings, ratio = plan.settings, generation.ratio
    sinks: tuple[Sink, ...] = ()
    if plan.features is not None:
        sinks += (PictureSink("features", Style(settings.features, ratio), host.show),)
    if plan.attention is not None:
        style = Style(settings.attention, ratio, generation.columns)
        sinks += (PictureSink("attention", style, host.show),)
        if plan.words or plan.points:
            steps = settings.attention.steps.strip() or f"1-{generation.request.steps}"
            about = {"Layer Name": spans(plan.attention.blocks), "Feature Steps": steps}
            sinks += (HeatmapSink(about, host.show, plan.points),)
    if plan.difference is not None:
        sinks += (PictureSink("difference", Style(settings.difference, ratio), host.show),)
    return sinks


def _about(plan: Plan, generation: Generation) -> About:
    """Collect what explorer pages show besides maps."""
    settings = plan.settings
    average = settings.difference.average if plan.features is None else settings.features.average
    return About(
        order=tuple(plan.layers),
        attending=tuple(block for block, count in plan.layers.items() if count),
        table=generation.request.blocks,
        colors={mode: getattr(settings, row.section).color for mode, row in modes().items()},
        average="2-norm" if average == "disable" else average,
        parameters=generation.parameters,
        plan=lambda hires: generation.texts_of(hires=hires).plan,
    )


def _dump_sinks(plan: Plan, generation: Generation) -> list[DumpSink]:
    sinks = []
    for (path, file_format), (request, kinds) in dump_targets(plan, generation).items():
        owners = (name for name, section in plan.settings.looking.items() if section.dump.path == path)
        with within(
            next(owners, "attention"), "dump", "path"
        ):  # maps of words may go elsewhere than the rest
            sinks.append(DumpSink(path, file_format, request, kinds))
    return sinks


def dump_targets(
    plan: Plan, generation: Generation
) -> dict[tuple[str, str], tuple[DumpRequest, frozenset[Kind]]]:
    """Return the request and kinds of each dump by folder and format; kinds with the same target share a dump."""
    settings = plan.settings
    targets: dict[tuple[str, str], frozenset[Kind]] = {}
    wanted: list[tuple[DumpSettings, frozenset[Kind]]] = []
    if plan.features is not None:
        wanted.append((settings.features.dump, kinds_of_section("features")))
    if plan.difference is not None:
        wanted.append((settings.difference.dump, kinds_of_section("difference")))
    if plan.attention is not None:
        wanted.append((settings.attention.dump, kinds_of_section("attention")))
        sums = frozenset(filter(of_image, plan.attention.kinds))
        if sums:
            wanted.append((settings.attention.heat, sums))
    for dump, kinds in wanted:
        if dump.enabled:
            target = (dump.path, dump.format)
            targets[target] = targets.get(target, frozenset()) | kinds
    return {target: (_dump_request(plan, generation, kinds), kinds) for target, kinds in targets.items()}


def _token_labels(texts: Texts) -> dict[str, tuple[str, ...]]:
    """Return the token labels of each text; those of "" are of the filler that pads shorter texts."""
    return {text: labels(tokens) for text, tokens in {**texts.tokens, "": texts.filler}.items() if tokens}


def _dump_request(plan: Plan, generation: Generation, kinds: frozenset[Kind]) -> DumpRequest:
    """Add to the request which captures to expect, and the texts and tokens that attention refers to."""
    request = replace(generation.request, expected=expected_keys(plan, kinds))
    if plan.attention is None or not kinds & kinds_of_section("attention"):
        return request
    return replace(
        request,
        text_of=lambda tag: generation.texts_of(hires=tag.hires).text(
            BatchRow(tag.image, tag.branch), tag.block, tag.step
        ),
        tokens=_token_labels(generation.texts) | _token_labels(generation.texts_of(hires=True)),
        attention={"blocks": plan.attention.blocks, "steps": _listed(plan.attention.steps, request.steps)},
    )


def _listed(steps: Container[int], total: int) -> tuple[int, ...]:
    return tuple(step for step in range(1, total + 1) if step in steps)


def expected_keys(plan: Plan, kinds: frozenset[Kind]) -> dict[str, Container[int]]:
    """Return the keys of the captures of some kinds that each image gives, with their steps."""
    expected: dict[str, Container[int]] = {}
    for tag, steps in planned_tags(plan):
        if tag.kind in kinds:
            expected[key_of(tag)] = steps
    return expected


def planned_tags(plan: Plan) -> list[tuple[Tag, Container[int]]]:
    """List the tags of the first image's captures (with step 1 as a placeholder), and the steps of each."""
    planned: list[tuple[Tag, Container[int]]] = []
    if plan.features is not None:
        planned += [(Tag(0, 1, block), plan.features.steps) for block in plan.features.blocks]
    if plan.difference is not None:
        planned += [(Tag(0, 1, b, "difference"), plan.difference.steps) for b in plan.difference.blocks]
    if plan.attention is not None:
        rows = [row for row in map(KINDS.get, sorted(plan.attention.kinds)) if row and not row.is_passing]
        for block in plan.attention.blocks:
            counts = {"block": 1, "layer": plan.layers[block], "image": 0}
            tags = (Tag(0, 1, block, row.name, n) for row in rows for n in range(counts[row.scope]))
            planned += [(tag, plan.attention.steps) for tag in tags]
    return planned
