"""A pipeline without weights, enough to parse prompts and to plan; it takes seconds and no memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import CLIPTokenizer

from lib_dumpunet.errors import SettingsError
from lib_dumpunet.hosts.diffusers.families import Family
from lib_dumpunet.hosts.diffusers.find import find_model
from lib_dumpunet.hosts.diffusers.header import FIELD, read_header, recognise
from lib_dumpunet.hosts.diffusers.loading import unet_config, unet_shell
from lib_dumpunet.hosts.diffusers.single_file import Given, Published


class Shell:
    """Replaces a pipeline for parsing prompts and planning; it cannot be called."""

    def __init__(self, name: str, unet: Any, scheduler: Any, tokenizers: dict[str, Any]) -> None:
        self.unet, self.scheduler = unet, scheduler
        self.config = {"_name_or_path": name}
        for part, tokenizer in tokenizers.items():
            setattr(self, part, tokenizer)
            # Code that needs a tokenizer also checks that its encoder exists.
            setattr(self, part.replace("tokenizer", "text_encoder"), unet)


def shell_pipeline(model: str, config: str | None) -> Shell:
    """Make the shell of a model from its configuration or its file's header.

    Raises:
        SettingsError: if that is not possible without loading the model.
    """
    path = find_model(model)
    header = read_header(path) if path is not None and path.is_file() else None
    if path is not None and header is not None:
        return _of_file(path, recognise(header), config)
    if path is None or path.is_file():
        raise SettingsError(
            "a dry run is not possible without loading this model",
            remedy="Give a .safetensors file, or a folder in diffusers format.",
            field=FIELD,
        )
    unet = unet_config(str(path))
    assert unet is not None
    tokenizers = {
        part.name: CLIPTokenizer.from_pretrained(part)
        for part in sorted(path.glob("tokenizer*"))
        if part.is_dir()
    }
    return Shell(str(path), unet_shell(unet), Given(str(path)).scheduler(), tokenizers)


def _of_file(path: Path, family: Family, config: str | None) -> Shell:
    source = Given(config) if config else Published(family)
    names = [name.replace("text_encoder", "tokenizer") for name in family.text_encoders]
    tokenizers = {name: source.tokenizer(name.replace("tokenizer", "text_encoder")) for name in names}
    return Shell(str(path), unet_shell(source.unet), source.scheduler(), tokenizers)
