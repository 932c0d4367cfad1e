"""Install missing packages; the webui runs this before it starts, and brings torch, numpy and Pillow itself."""

import importlib.util
import sys

PACKAGES = {"lark": "lark>=1.1.2", "safetensors": "safetensors"}


def install() -> None:
    """Install missing packages with the webui's own pip; without a webui, print the command that installs them."""
    missing = {m: package for m, package in PACKAGES.items() if importlib.util.find_spec(m) is None}
    try:
        import launch
    except ImportError:
        if missing:
            packages = " ".join(f'"{package}"' for package in missing.values())
            print(f"Dump U-Net needs these packages: {sys.executable} -m pip install {packages}")
        return
    if not getattr(getattr(launch, "args", None), "skip_install", False):
        for module, package in missing.items():
            launch.run_pip(f'install "{package}"', f"{module} for Dump U-Net")


install()
