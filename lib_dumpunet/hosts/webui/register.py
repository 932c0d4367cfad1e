"""Register callbacks with the webui, which forgets them on Reload UI and then loads the script again."""

from __future__ import annotations

from modules import script_callbacks

from lib_dumpunet.hosts.webui import axes, brackets, options, pages, script


def register() -> None:
    """Register all callbacks."""
    script_callbacks.on_before_ui(axes.add_axes)
    script_callbacks.on_ui_settings(options.add_options)
    script_callbacks.on_app_started(pages.add_route)
    script_callbacks.on_cfg_denoiser(script.on_denoiser)
    script_callbacks.on_script_unloaded(script.end_job)
    if hasattr(script_callbacks, "on_before_token_counter"):  # since 1.9
        script_callbacks.on_before_token_counter(brackets.count_text)
