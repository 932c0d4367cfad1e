"""Train the bundled model from scratch: `python -m lib_dumpunet.tiny.train STAGE`, stage after stage.

    preview    draw training pictures with their captions          -> WORK/preview.png
    scenes     sample scenes and captions                          -> WORK/scenes.pt
    vae        train the autoencoder, on crops of pictures         -> WORK/vae/
    cache      encode all pictures as latents                      -> WORK/latents.pt
    unet       train U-Net and text encoder on the latents         -> WORK/unet.pt
    placed     sample scenes whose captions say where things are,
               and encode them                                     -> WORK/placed.pt, placed-latents.pt
    text       teach the text encoder which object is where        -> WORK/text.pt
    relations  teach it to the U-Net                               -> WORK/relations.pt
    details    make what it draws sharp again                      -> WORK/details.pt
    export     write an fp16 pipeline folder                       -> --out

The model card lists the commands for the bundled weights. A stage runs for a fixed number of steps, so the same options
give the same weights on the same machine. `--resume` continues an interrupted run of unet, relations or details.
"""

from __future__ import annotations

import argparse
import logging
import random
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import torch
from PIL import Image, ImageDraw

from .autoencoder import train_vae
from .data import sample_scenes
from .diffusion import cache_latents, train_unet
from .export import export
from .options import Options
from .relations import place_scenes, train_details, train_relations
from .scenes import render, sample_scene
from .text import train_text
from .tokenizer import build_tokenizer

STAGES: dict[str, Callable[[Options], None]] = {
    "scenes": sample_scenes,
    "vae": train_vae,
    "cache": cache_latents,
    "unet": train_unet,
    "placed": place_scenes,
    "text": train_text,
    "relations": train_relations,
    "details": train_details,
}


def preview(options: Options, columns: int = 6, rows: int = 4) -> None:
    """Draw a sheet of training pictures with their captions."""
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
    parser.add_argument("--work", type=Path, default=Path("tiny-work"), help="folder for the stages' files")
    parser.add_argument("--out", type=Path, default=Path("tiny-model"), help="export: the pipeline's folder")
    parser.add_argument("--seed", type=int, default=Options.seed)
    parser.add_argument("--steps", type=int, default=Options.steps, help="length of a stage that trains")
    parser.add_argument("--batch", type=int, default=Options.batch, help="pictures per step")
    parser.add_argument(
        "--rate", type=float, default=Options.rate, help="highest learning rate of a stage that trains"
    )
    parser.add_argument(
        "--scenes",
        type=int,
        default=Options.scenes,
        help="scenes, placed: number of scenes, a multiple of 1000",
    )
    parser.add_argument("--widths", type=int, nargs=4, default=Options.widths, help="unet: channels by level")
    parser.add_argument(
        "--resume", action="store_true", help="unet, relations, details: resume from the saved weights"
    )
    parser.add_argument("--device", choices=["cpu", "cuda"], default=Options.device)
    parser.add_argument("--compile", action="store_true", help="vae, unet: compile the networks first")
    parser.add_argument(
        "--every", type=int, default=Options.every, help="steps between two lines of progress"
    )
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Run one stage."""
    given = _parser().parse_args(arguments)
    options = Options(**{field.name: getattr(given, field.name) for field in fields(Options)})
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.backends.cudnn.deterministic = True
    build_tokenizer(options.work / "tokenizer")
    if given.stage == "preview":
        preview(options)
    elif given.stage == "export":
        export(options.work, given.out)
    else:
        STAGES[given.stage](options)


if __name__ == "__main__":
    main()
