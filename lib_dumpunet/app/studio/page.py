"""The studio's page: its layout and events."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from lib_dumpunet.app.studio import render
from lib_dumpunet.app.studio.fields import GUIDANCE, OwnFields
from lib_dumpunet.app.studio.models import Models
from lib_dumpunet.app.studio.request import Request
from lib_dumpunet.app.studio.runs import Runs
from lib_dumpunet.errors import DumpUNetError
from lib_dumpunet.settings import (
    AttentionSettings,
    AttentionSwitch,
    ExplorerSettings,
    FeatureSettings,
    PanelSettings,
)
from lib_dumpunet.settings.fields import unpack
from lib_dumpunet.ui.markup import message
from lib_dumpunet.ui.panel import Panel, build

TITLE = "Dump U-Net studio"
POLL = 0.5  # seconds between two updates
BETWEEN = 3.0  # least seconds between two updates of the gallery during a run
DRAWN = 100  # pictures per second; the gallery is updated less often if it has more
NAMED = """async () => {
    const tabs = new BroadcastChannel("dumpunet-studio");
    let name = sessionStorage.getItem("dumpunet-studio");
    const isTaken = name && await new Promise((answer) => {
        tabs.onmessage = (event) => { if (event.data === "taken " + name) answer(true); };
        tabs.postMessage("who has " + name);
        setTimeout(() => answer(false), 300);
    });
    if (!name || isTaken) {
        name = Array.from(crypto.getRandomValues(new Uint8Array(16)), (b) => b.toString(16).padStart(2, "0")).join("");
        sessionStorage.setItem("dumpunet-studio", name);
    }
    tabs.onmessage = (event) => { if (event.data === "who has " + name) tabs.postMessage("taken " + name); };
    return [name];
}"""
"""Gives each tab a secret name that survives a reload, so that a tab finds its own runs again, and only those.

The browser copies the name when a tab is duplicated, so tabs ask each other whether a name is taken.
"""


BUNDLED_LAYERS, LAYERS = "IN05,OUT08,OUT11", "IN05,M00,OUT05"
"""The initially chosen blocks of the bundled model, and of any other model, including SDXL."""


def at_first(models: Models) -> PanelSettings:
    """Return the panel's initial settings, with which Generate quickly shows something of each kind."""
    layers = LAYERS if models.first.model else BUNDLED_LAYERS
    return PanelSettings(
        features=FeatureSettings(layers=layers, steps="1,10,20", average="2-norm"),
        switch=AttentionSwitch(True),
        attention=AttentionSettings(kinds=("words",)),
        explorer=ExplorerSettings(enabled=True),
    )


@dataclass(frozen=True)
class Page:
    """The page's controls and event functions; in Gradio, all tabs share one instance."""

    runs: Runs
    own: OwnFields
    panel: Panel

    def generate(self, name: str, *values: Any) -> list[Any]:
        """Start a run, or show the error at its control."""
        count = len(self.own.all)
        error: DumpUNetError | None = None
        try:
            choice, prompt, sampling = self.own.read(values[:count])
            self.runs.start(name, Request(choice, prompt, sampling, unpack(values[count:])))
        except DumpUNetError as problem:
            error = self.own.relabel(problem)
        if error is None:
            return [*self._buttons(is_busy=True), gr.Timer(active=True), *self._told(None), gr.skip()]
        return [*(gr.skip() for _ in range(3)), *self._told(error), message(str(error))]

    def stop(self, name: str) -> Any:
        """Stop the run of a tab."""
        run = self.runs.last(name)
        if run is not None:
            run.stop()

    def look(self, name: str, seen: dict[str, Any], *, anew: bool = False) -> list[Any]:
        """Update the page from its run; ``seen`` is what it already shows, ignored after a reload (``anew``)."""
        run = self.runs.last(name)
        unsaid = [gr.skip() for _ in self._told(None)]
        if run is None:
            nothing = [gr.skip() for _ in range(3)]
            return [*nothing, gr.Timer(active=False), *self._buttons(is_busy=False), {}, *unsaid]
        is_over, version = run.is_over, run.version
        if run.error is not None:
            self.own.relabel(run.error)
        known = {} if anew else seen
        now = {"status": render.status(run, self.runs.ahead(run)), "stage": render.stage(run)}
        drawn = known.get("drawn", 0.0)
        # Pictures come fast, and each update redraws the whole gallery.
        if is_over or run.progress.last - drawn > max(BETWEEN, len(run.items) / DRAWN):
            now["gallery"], drawn = render.gallery(run), run.progress.last
        else:
            now["gallery"] = known.get("gallery", "")
        shown = [gr.skip() if known.get(key) == text else text for key, text in now.items()]
        told = self._told(run.error) if is_over else unsaid
        ended = is_over and version == run.version
        now_seen = {**now, "drawn": drawn}
        return [*shown, gr.Timer(active=not ended), *self._buttons(is_busy=not is_over), now_seen, *told]

    def _buttons(self, *, is_busy: bool) -> list[Any]:
        return [gr.Button(interactive=not is_busy), gr.Button(interactive=is_busy)]

    def _told(self, error: DumpUNetError | None) -> list[str]:
        """Return the messages below each control, of the studio and of the panel."""
        return [*self.own.messages(error), *self.panel.messages(error)]


def build_page(runs: Runs) -> gr.Blocks:
    """Build the page."""
    own, models = OwnFields(runs.models), runs.models
    with gr.Blocks(title=TITLE, analytics_enabled=False) as blocks:
        name = gr.Textbox(visible=False)
        seen = gr.State({})
        gr.HTML(f'<h1 class="studio-title">{TITLE}</h1>')
        with gr.Row():
            with gr.Column(scale=5, min_width=360):
                own.add_prompt()
                own.add("negative")
                with gr.Row():
                    generate = gr.Button("Generate", variant="primary", elem_id="studio-generate")
                    stop = gr.Button("Stop", variant="stop", interactive=False, elem_id="studio-stop")
                size = _sampling(own, models)
                panel = build("studio", models.blocks, size, at_first(models))
            with gr.Column(scale=6, min_width=360, elem_id="studio-results"):
                status = gr.HTML(render.status(None, 0), elem_id="studio-status")
                stage = gr.HTML("", elem_id="studio-stage")
                gallery = gr.HTML("", elem_id="studio-gallery")
        page = Page(runs, own, panel)
        timer = gr.Timer(POLL, active=False)
        own.watch(models.blocks)
        told = [*(one.message for one in own.all), *panel.places]
        seeing = [status, stage, gallery, timer, generate, stop, seen, *told]
        quiet: dict[str, Any] = {"queue": False, "show_progress": "hidden"}
        generate.click(
            page.generate,
            [name, *(one.component for one in own.all), *panel.components],
            [generate, stop, timer, *told, status],
            **quiet,
        )
        stop.click(page.stop, [name], None, **quiet)
        timer.tick(page.look, [name, seen], seeing, **quiet)
        blocks.load(None, None, [name], js=NAMED).then(
            lambda name, seen: page.look(name, seen, anew=True), [name, seen], seeing, **quiet
        )
    return blocks


def _sampling(own: OwnFields, models: Models) -> Sequence[Any]:
    """Lay out the controls for sampling and the model; return the controls for width and height."""
    own.add("sampler")
    with gr.Row():
        own.add("steps")
        own.add("guidance", **({} if models.first.model else {"value": GUIDANCE}))
    with gr.Row():
        size = [own.add(side, value=models.side) for side in ("width", "height")]
        own.add("seed")
    with gr.Row():
        own.add("batch")
        own.add("count")
    own.add_model()
    if models.allowed is None:
        with gr.Accordion("Loading options", open=False), gr.Row():
            own.add_loading()
    return [one.component for one in size]
