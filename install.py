"""Run by the webui before it starts: installs what it lacks; it brings torch, numpy and Pillow itself."""

import importlib.util

import launch

PACKAGES = {"lark": "lark>=1.1.2", "safetensors": "safetensors"}

if not getattr(launch.args, "skip_install", False):
    for module, requirement in PACKAGES.items():
        if importlib.util.find_spec(module) is None:
            launch.run_pip(f'install "{requirement}"', f"{module} for Dump U-Net")
