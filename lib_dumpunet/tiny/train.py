"""Make the bundled model from nothing: `python -m lib_dumpunet.tiny.train STAGE`, stage after stage.

    preview  draw training pictures with their captions          -> WORK/preview.png
    vae      train the autoencoder, on crops                     -> WORK/vae/
    cache    make latents of pictures at --size, and their ids   -> WORK/cacheSIZE-*.pt
    unet     train U-Net and text encoder on these               -> WORK/unetSIZE.pt
    export   write an fp16 pipeline folder                       -> --out

Small pictures first: at 128 pixels a step costs a quarter, and colours and shapes are learnt there. The model
card tells which commands made the bundled weights. Stages are limited by steps: with the same --seed, --steps
and --workers they make the same weights on the same machine. `unet --resume` goes on where a run was stopped.
"""

from __future__ import annotations

import argparse
import logging
import random
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from .autoencoder import train_vae
from .diffusion import cache_latents, train_unet
from .export import export
from .options import Options
from .scenes import Kind, render, sample_scene
from .tokenizer import build_tokenizer
from .workers import Worker, launch

STAGES: dict[str, Callable[[Worker, Any], None]] = {
    "vae": train_vae,
    "cache": cache_latents,
    "unet": train_unet,
}


def preview(options: Options, columns: int = 6, rows: int = 4) -> None:
    """Draw a sheet of training pictures, each with its caption below it."""
    rng = random.Random(options.seed)
    sheet = Image.new("RGB", (columns * 260, rows * 290), "white")
    draw = ImageDraw.Draw(sheet)
    for i in range(columns * rows):
        scene, x, y = sample_scene(rng), i % columns * 260, i // columns * 290
        sheet.paste(render(scene), (x, y))
        start, _, end = scene.caption[40:].partition(" ")
        draw.text((x, y + 258), f"{scene.caption[:40]}{start}\n{end}", fill="black")
    sheet.save(options.work / "preview.png")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("stage", choices=["preview", *STAGES, "export"])
    parser.add_argument("--work", type=Path, default=Path("tiny-work"), help="folder for what stages leave")
    parser.add_argument("--out", type=Path, default=Path("tiny-model"), help="export: the pipeline's folder")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", type=int, default=1000, help="vae, unet: length of the whole stage")
    parser.add_argument("--until", type=int, default=0, help="unet: stop at this step, to go on another way")
    parser.add_argument("--batch", type=int, default=32, help="vae, unet: pictures a step, for each worker")
    parser.add_argument("--rate", type=float, default=0.01, help="vae, unet: highest learning rate")
    parser.add_argument("--size", type=int, default=128, help="cache, unet, export: side of the pictures")
    parser.add_argument("--pictures", type=int, default=40_000, help="cache: how many")
    parser.add_argument("--scale", type=float, default=Kind.scale, help="cache: size of the figures")
    parser.add_argument("--alone", type=float, default=Kind.alone, help="cache: part with one figure only")
    parser.add_argument("--tokens", type=int, default=77, help="unet: leading tokens of a caption that count")
    parser.add_argument("--focus", type=float, default=0.0, help="unet: weight of the loss on attention")
    parser.add_argument(
        "--begin", type=int, default=0, help="unet: begin with the weights of this other size"
    )
    parser.add_argument("--widths", type=int, nargs=4, default=Options.widths, help="unet: channels by level")
    parser.add_argument("--hold", action="store_true", help="vae, unet: no fall of the rate at the end")
    parser.add_argument("--resume", action="store_true", help="vae, unet: go on from the saved weights")
    parser.add_argument("--decoder-only", action="store_true", help="vae: leave the latents as they are")
    parser.add_argument("--device", default="cpu", help="unet: where to train, with one worker if no CPU")
    parser.add_argument("--workers", type=int, default=2, help="processes, of one thread each")
    parser.add_argument("--every", type=int, default=50, help="steps between two lines of progress")
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Run one stage."""
    given = _parser().parse_args(arguments)
    given.kind = Kind(given.scale, given.alone)
    options = Options(**{field.name: getattr(given, field.name) for field in fields(Options)})
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    build_tokenizer(options.work / "tokenizer")
    if given.stage == "preview":
        preview(options)
    elif given.stage == "export":
        export(options.work, options.size, given.out)
    else:
        launch(STAGES[given.stage], options, given.workers)


if __name__ == "__main__":
    main()
