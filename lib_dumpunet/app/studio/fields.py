"""The studio's own controls: model, prompts and sampling."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import Field, dataclass, fields
from typing import Any

import gradio as gr

from lib_dumpunet.app.models import DTYPES, PREDICTIONS
from lib_dumpunet.app.studio.models import Choice, Models
from lib_dumpunet.errors import DumpUNetError
from lib_dumpunet.hosts.diffusers.find import find_model
from lib_dumpunet.prompt.layer_prompt import parse_prompt
from lib_dumpunet.settings import SAMPLERS, GenerateSettings
from lib_dumpunet.settings.value import read_text, read_value
from lib_dumpunet.ui.checks import problem
from lib_dumpunet.ui.events import on_change
from lib_dumpunet.ui.markup import message
from lib_dumpunet.ui.tables import Info, order_of

PROMPT, NEGATIVE, MODEL = "Prompt", "Negative prompt", "Model"
BUNDLED_NAME = "the bundled model"
EXAMPLE = "a red circle and a blue square"
GUIDANCE = 4.0
"""Initial CFG scale, the one used for the bundled model's pictures."""
DEVICES = ("auto", "cpu", "cuda", "mps")
SHORT = {
    "sampler": None,
    "steps": None,
    "guidance": "Weight of the prompt.",
    "seed": "Of the first image; -1: random.",
    "width": "A multiple of 8.",
    "height": "A multiple of 8.",
    "batch": "Images per batch.",
    "count": "Number of batches.",
}
"""Short help texts, where space is limited; error messages give the rest."""
DECLARED: dict[str, Field[Any]] = {f.name: f for f in fields(GenerateSettings)}


@dataclass(frozen=True)
class Own:
    """A control, its label, and the element below it for error messages."""

    label: str
    component: Any
    message: Any


class OwnFields:
    """Makes the controls where the layout places them; ``read`` collects their values."""

    def __init__(self, models: Models) -> None:
        self._models = models
        self.by_name: dict[str, Own] = {}

    def add(self, name: str, **more: Any) -> Own:
        """Add a sampling control here."""
        metadata = DECLARED[name].metadata
        common = {
            "label": metadata["label"],
            "info": SHORT.get(name, f"{metadata['help'][:1].upper()}{metadata['help'][1:]}."),
            **more,
        }
        if name == "sampler":
            choices = [("the model's own", ""), *((shown, value) for value, shown in SAMPLERS.items())]
            return self._put(name, gr.Dropdown, choices=choices, value="", **common)
        if name == "negative":
            return self._put(name, gr.Textbox, lines=2, value="", **common)
        default = more.pop("value", DECLARED[name].default)
        step = 0.5 if name == "guidance" else 8 if name in ("width", "height") else 1
        return self._put(name, gr.Number, **{**common, "value": default, "step": step})

    def add_prompt(self) -> Own:
        """Add the prompt here."""
        return self._put(
            "prompt",
            gr.Textbox,
            label=PROMPT,
            lines=3,
            value=EXAMPLE,
            placeholder=EXAMPLE,
            info="What the image shows; the bundled model knows coloured shapes.",
        )

    def add_model(self) -> Own:
        """Add the control for the model here: free text, or a choice if only some models are allowed."""
        first = self._models.first.model
        if self._models.allowed is not None:
            choices = [(one.model or BUNDLED_NAME, one.model) for one in self._models.allowed]
            return self._put("model", gr.Dropdown, label=MODEL, choices=choices, value=first)
        return self._put(
            "model",
            gr.Textbox,
            label=MODEL,
            value=first,
            placeholder=BUNDLED_NAME,
            max_lines=1,
            info="A checkpoint file, a folder in diffusers format, or a Hugging Face Hub id; empty: the bundled model.",
        )

    def add_loading(self) -> None:
        """Add the controls for how the model is loaded here."""
        first = self._models.first
        device = {"choices": list(dict.fromkeys((first.device, *DEVICES))), "value": first.device}
        self._put("device", gr.Dropdown, label="Device", **device)
        self._put("dtype", gr.Dropdown, label="Precision", choices=list(DTYPES), value=first.dtype)
        self._put(
            "config",
            gr.Textbox,
            label="Configuration",
            value=first.config or "",
            max_lines=1,
            info="For a checkpoint file with a non-standard shape: a model in diffusers format of the same shape.",
        )
        self._put(
            "prediction",
            gr.Dropdown,
            label="Prediction",
            choices=list(PREDICTIONS),
            value=first.prediction,
            info="What the model predicts: noise (epsilon) or velocity (v); auto detects it from its files.",
        )

    def _put(self, name: str, kind: Callable[..., Any], **options: Any) -> Own:
        with gr.Column(elem_classes=["dumpunet-field"], min_width=110):
            component = kind(elem_id=f"studio-{name}", **options)
            place = gr.HTML("", elem_id=f"studio-{name}-message", elem_classes=["dumpunet-message"])
        self.by_name[name] = Own(options["label"], component, place)
        return self.by_name[name]

    @property
    def all(self) -> Sequence[Own]:
        """The controls in a fixed order."""
        return list(self.by_name.values())

    def read(self, values: Sequence[Any]) -> tuple[Choice, str, GenerateSettings]:
        """Read the values of the controls, in the order of ``all``.

        Raises:
            SettingsError: for the first mistake.
        """
        named = dict(zip(self.by_name, values, strict=True))
        choice = self._choice(named)
        sampling = GenerateSettings(
            **{name: read_value(DECLARED[name], value) for name, value in named.items() if name in DECLARED}
        )
        return choice, read_text(named["prompt"], PROMPT), sampling

    def _choice(self, named: dict[str, Any]) -> Choice:
        model = read_text(named["model"], MODEL).strip()
        if self._models.allowed is not None:  # then the page chooses only the model's name
            return next((one for one in self._models.allowed if one.model == model), Choice(model))
        return Choice(
            model,
            read_text(named["device"], "Device") or "auto",
            read_text(named["dtype"], "Precision") or "auto",
            read_text(named["config"], "Configuration").strip() or None,
            read_text(named["prediction"], "Prediction") or "auto",
        )

    def watch(self, info: Info) -> None:
        """Show errors below each control while the user types; for the model, when it loses focus."""
        for name, own in self.by_name.items():
            check = self._check_of(name, info)
            if name == "model":
                if self._models.allowed is None:
                    own.component.blur(check, own.component, own.message, queue=False, show_progress="hidden")
            elif check is not None:
                on_change(own.component, check, [own.component], own.message)

    def _check_of(self, name: str, info: Info) -> Callable[[Any], str] | None:
        if name in ("prompt", "negative"):
            label = self.by_name[name].label
            return lambda text: message(
                problem(lambda: parse_prompt(text or "", order_of(info), field=label))
            )
        if name == "model":
            return lambda text: message(problem(lambda: self._find_model(text or "")))
        if name in DECLARED and name != "sampler":
            return lambda value: message(
                problem(lambda: GenerateSettings(**{name: read_value(DECLARED[name], value)}))
            )
        return None

    def _find_model(self, text: str) -> None:
        try:
            find_model(text.strip())
        except DumpUNetError as error:
            raise self.relabel(error) from None

    def messages(self, error: DumpUNetError | None) -> list[str]:
        """Return the message below each control: the error at its control, empty at the others."""
        return [message(str(error)) if error and error.field == own.label else "" for own in self.all]

    def relabel(self, error: DumpUNetError) -> DumpUNetError:
        """Change an error's field to the control's label; the command line writes some names in lower case."""
        labels = {own.label.casefold(): own.label for own in self.all}
        error.field = labels.get(error.field.casefold(), error.field)
        return error
