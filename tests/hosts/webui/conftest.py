"""The webui's stand-in, with a model and the extension's scripts."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.hosts.webui import standin
from tests.unets import CONTEXT, hook_count, ldm_unet


@pytest.fixture(scope="session", autouse=True)
def webui(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Install the stand-in before the extension is imported, which binds the webui's names."""
    standin.install(tmp_path_factory.mktemp("webui"))


@pytest.fixture(scope="session")
def unet() -> Any:
    return ldm_unet("sd1")


class Lab:
    """A webui with the extension."""

    def __init__(self, folder: Path) -> None:
        from lib_dumpunet.hosts.webui.page import FROM_PANEL
        from lib_dumpunet.hosts.webui.script import AlwaysOnScript, Panel

        self.shared = sys.modules["modules.shared"]
        self.folder = folder
        self.companion, self.panel = AlwaysOnScript(), Panel()
        self.companion.args_from, self.companion.args_to = 1, 2
        self.panel.args_from, self.panel.args_to = 2, 3
        self.scripts = standin.Runner([self.companion], [self.panel, object()])
        self.from_panel = FROM_PANEL

    def job(self, settings: Any = "", **job: Any) -> standin.Processing:
        """Make a job with settings, as the API does."""
        return standin.Processing(self.scripts, [0, settings, None], outpath_samples=str(self.folder), **job)

    def run(self, settings: Any = "", **job: Any) -> Any:
        """Run a job without any script of the dropdown."""
        processed = standin.process_images(self.job(settings, **job))
        assert not self.scripts.swallowed, self.scripts.swallowed
        return processed

    def choose(self, settings: Any, **job: Any) -> Any:
        """Run a job by the panel in the dropdown."""
        p = self.job("", **job)
        p.script_args[0] = 1
        return self.panel.run(p, settings)


@pytest.fixture
def family(request: pytest.FixtureRequest) -> str:
    """The family of webuis: that of AUTOMATIC1111's, or Forge's."""
    return getattr(request, "param", "automatic1111")


both_families = pytest.mark.parametrize("family", ["automatic1111", "forge"], indirect=True)


@pytest.fixture
def lab(unet: Any, tmp_path: Path, family: str) -> Iterator[Lab]:
    from lib_dumpunet.hosts.webui import script

    shared = sys.modules["modules.shared"]
    make = standin.forge_model if family == "forge" else standin.model_of
    shared.sd_model = make(unet, CONTEXT)
    sys.modules["modules.sd_models"].model_data.sd_model = shared.sd_model
    shared.callbacks = [script.on_denoiser]
    shared.state.interrupted = shared.state.skipped = False
    shared.state.job_count = -1
    shared.opts.batch_cond_uncond, shared.opts.skip_uncond_from = True, None
    vars(shared.cmd_opts).clear()
    standin.ENCODED.clear()
    yield Lab(tmp_path)
    script.end_job()
    assert hook_count(unet) == 0
