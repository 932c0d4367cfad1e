"""The bundled model: a very small Stable Diffusion 1.x, and the scripts that made and measured it.

It lets the demonstration, the studio and the tests run a real pipeline without a download.
"""

from pathlib import Path

MODEL = Path(__file__).parent / "model"
