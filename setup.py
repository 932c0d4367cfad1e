"""Puts into a built package what lies beside it, where a webui looks for it: the studio needs it, too."""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

BESIDE = ("style.css", "javascript/dumpunet.js")


class BuildPy(build_py):
    """Copies files from beside the package into the studio's folder `panel`."""

    def run(self) -> None:
        """Build as usual, then copy; an editable install finds the files where they are."""
        super().run()
        if self.editable_mode:
            return
        target = Path(self.build_lib, "lib_dumpunet", "app", "studio", "panel")
        self.mkpath(str(target))
        for name in BESIDE:
            self.copy_file(name, str(target / Path(name).name))


setup(cmdclass={"build_py": BuildPy})
