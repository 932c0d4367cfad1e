"""Copy the files that a webui expects next to the package into the built package: the studio needs them too."""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

BESIDE = ("style.css", "javascript/dumpunet.js")


class BuildPy(build_py):
    """Copies the files next to the package into the studio's folder `panel`."""

    def run(self) -> None:
        """Build as usual, then copy the files; an editable install finds them in place."""
        super().run()
        if self.editable_mode:
            return
        target = Path(self.build_lib, "lib_dumpunet", "app", "studio", "panel")
        self.mkpath(str(target))
        for name in BESIDE:
            self.copy_file(name, str(target / Path(name).name))


setup(cmdclass={"build_py": BuildPy})
