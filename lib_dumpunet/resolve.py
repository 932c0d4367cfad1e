"""Resolve settings against a model's facts and prompts into a plan; this is where every user mistake is found.

This needs neither torch nor a model. Anything not known yet stays unchecked, and is checked when the settings are
resolved again with more facts. Before a model is loaded, its facts are all blocks it may have.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from lib_dumpunet.blocks import ModelFacts, spans
from lib_dumpunet.captures import PLAIN, Branch
from lib_dumpunet.errors import SettingsError, within
from lib_dumpunet.image.expression import compile_channels
from lib_dumpunet.kinds import KINDS, Kind, is_shown, kinds_of_choice
from lib_dumpunet.plan import AttentionRequest, CaptureRequest, Plan
from lib_dumpunet.prompt.points import parse_points
from lib_dumpunet.prompt.selection import parse_steps, select_blocks
from lib_dumpunet.prompt.template import Template
from lib_dumpunet.prompt.texts import Texts, WordChoice, parse_words
from lib_dumpunet.prompt.words import all_words
from lib_dumpunet.settings import (
    AttentionSettings,
    DifferenceSettings,
    DumpSettings,
    ExplorerSettings,
    FeatureSettings,
    Settings,
)

FIELDS = {
    FeatureSettings: ("Layers", "Image saving steps"),
    DifferenceSettings: ("Difference layers", "Difference steps"),
    AttentionSettings: ("Attention layers", "Attention steps"),
}
"""Labels of a section's fields for blocks and for steps."""


@dataclass(frozen=True)
class Prompts:
    """The facts of a generation that settings are resolved against.

    Attributes:
        templates: the parsed prompts, and the negative prompts if they are used.
        steps: number of sampling steps; None if it is known only after sampling.
        size: width and height of the images in pixels; None if not known yet.
        texts: the texts that blocks read, with their tokens; None before the tokenizer is loaded.
    """

    templates: tuple[Template, ...]
    steps: int | None
    size: tuple[int, int] | None = None
    texts: Texts | None = None


def resolve(settings: Settings, facts: ModelFacts, prompts: Prompts) -> Plan:
    """Resolve settings against a model and prompts.

    Raises:
        SettingsError: at the first mistake.
        FormulaError: if a colour formula cannot be parsed.
    """
    for name, section in settings.looking.items():
        if section.enabled:
            with within(name, "color"):
                compile_channels(section.color)
    plan = Plan(settings, facts.layers or {})
    if settings.features.enabled:
        with within("features"):
            features, notes = _blocks(settings.features, facts, prompts)
        plan = replace(plan, features=features, notes=notes)
    if settings.attention.enabled:
        plan = _with_attention(plan, facts, prompts)
    else:
        parse_points(settings.attention.points)
    if settings.difference.enabled:
        require_brackets(prompts.templates)
        with within("difference"):
            request, notes = _blocks(settings.difference, facts, prompts)
        steered = replace(request, kind="steered")
        plan = replace(plan, difference=steered, notes=(*plan.notes, *notes))
    require_shown(settings)
    return plan


def _blocks(
    section: FeatureSettings | DifferenceSettings, facts: ModelFacts, prompts: Prompts
) -> tuple[CaptureRequest, tuple[str, ...]]:
    layers, field = FIELDS[type(section)]
    with within("layers"):
        blocks = select_blocks(section.layers, facts.order, field=layers)
    with within("steps"):
        steps, notes = _steps(section.steps, field, prompts)
    return CaptureRequest(blocks, steps), notes


def _steps(text: str, field: str, prompts: Prompts) -> tuple[Container[int], tuple[str, ...]]:
    """Return the chosen steps, and a note if some are past the last step."""
    choice = parse_steps(text, field=field)
    if prompts.steps is None:
        return choice, ()
    past = f"{field}: {text!r} goes past the last step; sampling takes {prompts.steps} steps"
    return frozenset(choice.left(prompts.steps)), (past,) * choice.goes_past(prompts.steps)


def _with_attention(plan: Plan, facts: ModelFacts, prompts: Prompts) -> Plan:
    attention = plan.settings.attention
    (of_layers, layers), (of_steps, field) = _fields_of_attention(plan.settings)
    with within(of_layers, "layers"):
        blocks, skipped = attention_blocks(facts, attention.layers, field=layers)
    with within(of_steps, "steps"):
        steps, past = _steps(attention.steps, field, prompts)
    with within("attention"):
        words = choose_words(attention, prompts.texts)
        with within("points"):
            points = parse_points(attention.points, prompts.size)
    kinds = kinds_of(choice for choice in attention.kinds if choice != "words")
    more = {"word": bool(words), "point": bool(points)}
    request = AttentionRequest(
        blocks,
        steps,
        kinds | {kind for kind, wanted in more.items() if wanted},
        attention.lattice,
        tuple(point.place for point in points),
        tuple(words),
        (prompts.texts or Texts()).text,
    )
    notes = (*plan.notes, *skipped, *past)
    return replace(plan, attention=request, words=words, points=points, notes=notes)


def _fields_of_attention(settings: Settings) -> list[tuple[str, str]]:
    """Return section and label of the fields that attention's blocks and steps came from.

    Attention uses the features' values unless it has its own.
    """
    texts = ((part.layers, part.steps) for part in (settings.features, settings.attention))
    shared = [bool(text.strip()) and text == own for text, own in zip(*texts, strict=True)]
    labels = zip(FIELDS[FeatureSettings], FIELDS[AttentionSettings], shared, strict=True)
    return [("features", first) if is_shared else ("attention", own) for first, own, is_shared in labels]


def kinds_of(choices: Iterable[str]) -> frozenset[Kind]:
    """Return the kinds to capture for some choices of *Output features*."""
    return frozenset[Kind]().union(*map(kinds_of_choice, choices))


def attention_blocks(facts: ModelFacts, text: str, *, field: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the chosen blocks that have attention layers, and a note about those without.

    Raises:
        SettingsError: if no chosen block has attention layers.
    """
    if facts.layers is None:
        return select_blocks(text, facts.order, field=field), ()
    able = facts.attending
    chosen = select_blocks(text, facts.order, field=field) if text.strip() else able
    kept = tuple(block for block in chosen if block in able)
    if not kept:
        problem = f"{spans(chosen)}: no attention layer" if able else "the model has no attention layers"
        remedy = f"Choose among {spans(able)}." if able else "Choose another model."
        raise SettingsError(problem, remedy=remedy, field=field)
    skipped = tuple(block for block in chosen if block not in kept)
    return kept, (f"{field}: no attention layer in {spans(skipped)}, left out",) if skipped else ()


def choose_words(attention: AttentionSettings, texts: Texts | None) -> dict[Branch, WordChoice]:
    """Parse the chosen words, and check that they are in the prompts if these are tokenized already.

    Raises:
        SettingsError: if a word is not in the prompts.
    """
    choices: dict[Branch, WordChoice] = {}
    if "words" in attention.kinds or attention.words.strip():
        choices["cond"] = parse_words(attention.words, field="Words")
        if texts is not None:
            with within("words"):
                choices["cond"].check(texts.of("cond"))
    if attention.negative_words.strip(" ,"):
        choices["uncond"] = parse_words(attention.negative_words, field="Negative words")
        if texts is not None:
            with within("negative_words"):
                _check_negative(choices["uncond"], texts)
    return choices


def _check_negative(choice: WordChoice, texts: Texts) -> None:
    negative = texts.of("uncond")
    if not negative:
        raise SettingsError(
            "the negative prompt is not used", remedy="Set CFG Scale above 1.", field=choice.field
        )
    if not any(map(all_words, negative)):
        raise SettingsError("the negative prompt has no words", remedy="Write some.", field=choice.field)
    choice.check(negative)


def require_brackets(templates: Iterable[Template]) -> None:
    """Check that a difference has something to compare.

    Raises:
        SettingsError: if no prompt has brackets.
    """
    if not any(template.has_brackets for template in templates):
        raise SettingsError(
            "no prompt has text per block, so there is nothing to compare",
            remedy="Write one such as a (~: M00: cute :~) girl, or turn the difference off.",
            field="Difference",
        )


def require_shown(settings: Settings) -> None:
    """If an explorer page is wanted, check that something is captured that it can show.

    Raises:
        SettingsError: if nothing is.
    """
    attention = settings.attention
    shown = [row for row in KINDS.values() if row.choice in attention.kinds and is_shown(row)]
    texts = attention.words + attention.negative_words + attention.points
    looks = settings.features.enabled or settings.difference.enabled or shown or texts.strip()
    if settings.explorer.enabled and not looks:
        with within("explorer", "enabled"):
            raise SettingsError(
                "nothing is captured that a page could show",
                remedy="Turn on features, or attention of another kind than K, or turn the page off.",
                field="Write explorer page",
            )


def needs_table(settings: Settings) -> bool:
    """Whether the model's block table is needed, for dumps or pages."""
    return is_dumping(settings) or settings.explorer.enabled


def is_dumping(settings: Settings) -> bool:
    """Whether any tensor is dumped."""
    attention = settings.attention
    dumps = (settings.features.dump, settings.difference.dump, attention.dump, attention.heat)
    return any(dump.enabled for dump in dumps)


def of_plain_run(settings: Settings) -> Settings | None:
    """Return the settings of the run without per-block prompts, with dumps in their own folder; None if it has none."""
    looks = settings.features.enabled or settings.attention.enabled
    if not (settings.difference.enabled and settings.difference.runs == "both" and looks):
        return None
    same = replace(settings, difference=DifferenceSettings(), explorer=ExplorerSettings())
    return same.with_dumps(_beside)


def _beside(dump: DumpSettings) -> DumpSettings:
    return replace(dump, path=str(Path(dump.path, PLAIN)))
