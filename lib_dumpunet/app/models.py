"""The flags that choose a model, and the functions that load it."""

from __future__ import annotations

import argparse
import logging
import warnings
from typing import Any

from lib_dumpunet.app.output import Terminal
from lib_dumpunet.app.processor import fit_threads
from lib_dumpunet.blocks import ModelFacts
from lib_dumpunet.hosts.diffusers.find import find_model, model_facts
from lib_dumpunet.hosts.extras import require_extra

DTYPES = ("auto", "fp16", "bf16", "fp32")
PREDICTIONS = ("auto", "epsilon", "v")


def add_model_flags(parser: argparse.ArgumentParser) -> None:
    """Add --model, --device, --dtype, --config and --prediction."""
    group = parser.add_argument_group("The model")
    group.add_argument(
        "--model",
        default="",
        metavar="MODEL",
        help="a checkpoint file (.safetensors, .ckpt), a folder in diffusers format, or a Hugging Face Hub id "
        "(default: the small bundled model)",
    )
    group.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (default: auto)")
    group.add_argument(
        "--dtype",
        default="auto",
        choices=DTYPES,
        help="auto is fp16 on a GPU and fp32 on a CPU (default: auto)",
    )
    group.add_argument(
        "--config",
        metavar="FOLDER",
        help="for a checkpoint file with a non-standard shape: a model in diffusers format with its configuration",
    )
    group.add_argument(
        "--prediction",
        default="auto",
        choices=PREDICTIONS,
        help="what the model predicts: noise (epsilon) or velocity (v); auto detects it from its files, and for "
        "SD 2.x also by one call of the U-Net (default: auto)",
    )


def locate(args: argparse.Namespace) -> ModelFacts:
    """Check that the model exists, without importing a library, and return its facts.

    Raises:
        SettingsError: if there is no such file or folder, or it is damaged.
        UnsupportedModelError: if it is not a supported model.
    """
    path = find_model(args.model)
    if args.config is not None:
        find_model(args.config, field="config")
    return model_facts(path)


def load(args: argparse.Namespace, terminal: Terminal) -> Any:
    """Load the pipeline that the flags name.

    Raises:
        SettingsError, UnsupportedModelError: if there is no such model, or it has no U-Net.
    """
    locate(args)
    terminal.say(f"Loading {args.model or 'the bundled model'} ...")
    hush_libraries()
    from lib_dumpunet.hosts.diffusers.loading import load_pipeline

    pipe = load_pipeline(
        args.model,
        device=args.device,
        dtype=args.dtype,
        config=args.config,
        prediction=args.prediction,
        tell=terminal.say,
    )
    fit_threads(pipe.unet)
    return pipe


def hush_libraries() -> None:
    """Silence the libraries' progress bars and warnings; their errors are raised as exceptions.

    Raises:
        HostError: if they are not installed.
    """
    require_extra("diffusers")
    warnings.simplefilter("ignore")
    for name in ("transformers", "diffusers", "huggingface_hub", "torch"):
        logging.getLogger(name).setLevel(logging.ERROR)
    import diffusers
    import transformers

    for library in (diffusers, transformers):
        library.utils.logging.set_verbosity_error()
        library.utils.logging.disable_progress_bar()
