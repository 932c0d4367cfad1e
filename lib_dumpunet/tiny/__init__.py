"""The bundled model, a very small Stable Diffusion 1.x, and the scripts that trained and evaluated it.

With it, the demo, the studio and the tests run a real pipeline without a download.
"""

from pathlib import Path

MODEL = Path(__file__).parent / "model"
