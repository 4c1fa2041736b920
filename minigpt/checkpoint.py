"""A checkpoint is a folder: config.json, model.safetensors and tokenizer.json."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from minigpt.config import RunConfig
from minigpt.model import GPT
from minigpt.tokenizer import Tokenizer

Weights = dict[str, Tensor]


def save(folder: Path, config: RunConfig, weights: Weights, tokenizer: Tokenizer,
         optimizer: Weights | None = None) -> Path:
    """The folder, written whole or not at all; `optimizer` adds what a run needs to go on."""
    folder = Path(folder)
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    (partial / "config.json").write_text(config.to_json(), encoding="utf-8")
    tokenizer.save(partial / "tokenizer.json")
    write_weights(partial / "model.safetensors", untied(config, weights), tokenizer)
    if optimizer is not None:
        write_weights(partial / "optimizer.safetensors", optimizer, tokenizer)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    return folder


def load(folder: Path) -> tuple[GPT, Tokenizer, RunConfig]:
    """The model, its tokenizer and the run that made it.

    Raises  ValueError if a file is missing or cut short, if the weights are not those of the config, or if they
            were trained with another tokenizer.
    """
    folder = Path(folder)
    config = RunConfig.read(folder / "config.json")
    tokenizer = Tokenizer.load(folder / "tokenizer.json")
    check_tokenizer(folder / "model.safetensors", tokenizer)
    model = GPT(config.model)
    load_weights(model, folder / "model.safetensors")
    return model.eval(), tokenizer, config


def load_weights(model: GPT, path: Path) -> None:
    """Put the weights of a file into the model. Raises ValueError, naming the tensor that does not fit."""
    found = read_weights(path)
    wanted = untied(model, model.state_dict())
    for name in [*wanted, *found]:
        if name not in found or name not in wanted:
            raise ValueError(f"{path} {'lacks' if name in wanted else 'has an extra'} tensor {name}; "
                             "it belongs to another config")
        if found[name].shape != wanted[name].shape:
            raise ValueError(f"{name} in {path} has shape {tuple(found[name].shape)} but the config wants "
                             f"{tuple(wanted[name].shape)}; it belongs to another config")
    model.load_state_dict(found, strict=False)


def check_tokenizer(path: Path, tokenizer: Tokenizer) -> None:
    """Raises ValueError, naming both, if the weights in the file were trained with another tokenizer."""
    trained_with = _read(path, lambda file: file.metadata() or {}).get("tokenizer", "none")
    if trained_with != tokenizer.fingerprint:
        raise ValueError(f"{path} was trained with tokenizer {trained_with} but the one beside it is "
                         f"{tokenizer.fingerprint}; put back the tokenizer.json of the run")


def write_weights(path: Path, weights: Weights, tokenizer: Tokenizer) -> None:
    """Tensors by name and the tokenizer's fingerprint into a file, written aside and renamed.

    Raises  OSError if the disk takes no more; what was there before is untouched.
    """
    partial = path.with_name(path.name + ".partial")
    whole = {name: tensor.detach().contiguous() for name, tensor in weights.items()}
    try:
        save_file(whole, partial, metadata={"tokenizer": tokenizer.fingerprint})
    except SafetensorError as fault:
        raise OSError(None, f"the weights could not be written ({fault})", str(path)) from None
    partial.replace(path)


def read_weights(path: Path) -> Weights:
    """Tensors by name. Raises ValueError if the file is missing or cut short."""
    return _read(path, lambda file: {name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118


def _read(path: Path, take: Callable[[Any], Any]) -> Any:
    try:
        with safe_open(path, framework="pt") as file:
            return take(file)
    except FileNotFoundError:
        raise ValueError(f"there are no weights at {path}; the run has not finished or the folder is wrong") from None
    except SafetensorError as fault:
        raise ValueError(f"{path} is damaged ({fault}); restore it, or resume from an older checkpoint") from None


def untied(owner: RunConfig | GPT, weights: Weights) -> Weights:
    """The weights without the output layer's second name for the embedding, where the two are one."""
    model = owner.model if isinstance(owner, RunConfig) else owner.config
    return {name: tensor for name, tensor in weights.items() if not (model.tied and name == "head.weight")}


def finished(folder: Path) -> list[Path]:
    """The whole checkpoints step-000200, step-000400, ... in a folder, oldest first."""
    return sorted(path for path in Path(folder).glob("step-*") if path.suffix != ".partial")


def remove(folder: Path) -> None:
    """Delete a checkpoint so that an interruption never leaves half of one under its name."""
    doomed = folder.with_name(folder.name + ".partial")
    folder.rename(doomed)
    shutil.rmtree(doomed)
