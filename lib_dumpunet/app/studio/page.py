"""The studio's page: its layout, and what happens on it."""

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
from lib_dumpunet.ui.events import message
from lib_dumpunet.ui.panel import Panel, build

TITLE = "Dump U-Net studio"
POLL = 0.5  # seconds between two looks at a run
BETWEEN = 3.0  # seconds at least between two changes of the gallery while pictures come
DRAWN = 100  # pictures a second, that a gallery may be drawn again with
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
"""Gives each tab a secret name, which it keeps when it is reloaded: by it a page finds its runs again, and no other.

The browser copies the name to a tab that is duplicated, so tabs of one name ask each other.
"""


BUNDLED_LAYERS, LAYERS = "IN05,OUT08,OUT11", "IN05,M00,OUT05"
"""Blocks that are looked at first: of the bundled model, and of any other, SDXL included."""


def at_first(models: Models) -> PanelSettings:
    """Choose what the panel holds at first: a click on Generate shows something of each kind in little time."""
    layers = LAYERS if models.first.model else BUNDLED_LAYERS
    return PanelSettings(
        features=FeatureSettings(layers=layers, steps="1,10,20", average="2-norm"),
        switch=AttentionSwitch(True),
        attention=AttentionSettings(kinds=("words",)),
        explorer=ExplorerSettings(enabled=True),
    )


@dataclass(frozen=True)
class Page:
    """The controls of a page, and the functions behind them; all pages share one, as Gradio has it."""

    runs: Runs
    own: OwnFields
    panel: Panel

    def generate(self, name: str, *values: Any) -> list[Any]:
        """Begin a run, or say at its control what is wrong."""
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
        """Stop the run of a page."""
        run = self.runs.last(name)
        if run is not None:
            run.stop()

    def look(self, name: str, seen: dict[str, Any], *, anew: bool = False) -> list[Any]:
        """Bring the page in line with its run; ``seen`` is what it shows already, unless it is ``anew``."""
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
        # Pictures come fast, and each change of the gallery draws all of it again.
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
        """Return what stands below each control, of the studio's own and of the panel."""
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
                status = gr.HTML(render.IDLE, elem_id="studio-status")
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
    """Lay out how to sample, and with which model; gives the controls of width and height."""
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
        with gr.Accordion("How it is loaded", open=False), gr.Row():
            own.add_loading()
    return [one.component for one in size]
