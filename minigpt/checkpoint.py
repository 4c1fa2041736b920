"""A checkpoint is a folder: config.json, model.safetensors and tokenizer.json; ours or Hugging Face's."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from minigpt import huggingface
from minigpt.config import ModelConfig, RunConfig
from minigpt.disk import whole_folder
from minigpt.huggingface import Weights
from minigpt.model import GPT
from minigpt.tokenizer import Tokenizer


def save(folder: Path, config: RunConfig, weights: Weights, tokenizer: Tokenizer,
         optimizer: Weights | None = None, row: dict[str, float] | None = None) -> Path:
    """The folder, written whole or not at all; `optimizer` and the log's `row` are what a run needs to go on."""
    with whole_folder(folder) as partial:
        (partial / "config.json").write_text(config.to_json(), encoding="utf-8")
        tokenizer.save(partial / "tokenizer.json")
        write_weights(partial / "model.safetensors", untied(config.model, weights), tokenizer)
        if optimizer is not None:
            write_weights(partial / "optimizer.safetensors", optimizer, tokenizer)
            (partial / "row.json").write_text(json.dumps(row) + "\n", encoding="utf-8")
    return Path(folder)


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
    load_weights(model, read_weights(folder / "model.safetensors"), folder / "model.safetensors")
    return model.eval(), tokenizer, config


def export(folder: Path, target: Path) -> Path:
    """A checkpoint of ours as a folder that `transformers` opens with AutoModelForCausalLM and AutoTokenizer.

    Raises  ValueError if the model belongs to neither GPT-NeoX nor LLaMA, or if `target` is not empty.
    """
    model, tokenizer, config = load(folder)
    target = Path(target)
    if target.exists() and any(target.iterdir()):
        raise ValueError(f"{target} is not empty; name a new folder")
    theirs = huggingface.to_weights(config.model, untied(config.model, model.state_dict()))
    files = {"config.json": huggingface.to_config(config.model, tokenizer.end_of_text),
             "tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": tokenizer.end,
                                       "bos_token": tokenizer.end, "clean_up_tokenization_spaces": False,
                                       "model_max_length": config.model.max_seq_len}}
    with whole_folder(target) as partial:
        for name, content in files.items():
            (partial / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        tokenizer.save(partial / "tokenizer.json")
        write_weights(partial / "model.safetensors", theirs, tokenizer)
    return target


def load_huggingface(folder: Path) -> GPT:
    """The model in a folder that `transformers` wrote, if it is a GPT-NeoX or a LLaMA.

    Raises  ValueError if it is of another family, or if files are missing or damaged.
    """
    folder = Path(folder)
    if not (folder / "config.json").exists():
        raise ValueError(f"there is no config at {folder / 'config.json'}; give the folder of a model")
    config = huggingface.from_config(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ValueError(f"there are no weights in {folder}; it needs files that end in .safetensors")
    theirs = {name: tensor for file in files for name, tensor in read_weights(file).items()}
    model = GPT(config)
    load_weights(model, huggingface.from_weights(config, theirs), folder)
    return model.eval()


def load_weights(model: GPT, found: Weights, path: Path) -> None:
    """Put weights into the model. Raises ValueError, naming the tensor of `path` that does not fit."""
    check_tensors(untied(model.config, model.state_dict()), found, path)
    model.load_state_dict(found, strict=False)


def check_tensors(wanted: Weights, found: Weights, path: Path) -> None:
    """Raises ValueError, naming the first tensor of the file that is missing, extra or of another shape."""
    for name in [*wanted, *found]:
        if name not in found or name not in wanted:
            raise ValueError(f"{path} {'lacks' if name in wanted else 'has an extra'} tensor {name}; "
                             "it belongs to another config")
        if found[name].shape != wanted[name].shape:
            raise ValueError(f"{name} in {path} has shape {tuple(found[name].shape)} but the config wants "
                             f"{tuple(wanted[name].shape)}; it belongs to another config")


def check_tokenizer(path: Path, tokenizer: Tokenizer) -> None:
    """Raises ValueError, naming both, if the weights in the file were trained with another tokenizer."""
    trained_with = _read(path, lambda file: file.metadata() or {}).get("tokenizer", "none")
    if trained_with != tokenizer.fingerprint:
        raise ValueError(f"{path} was trained with tokenizer {trained_with} but the one of this folder is "
                         f"{tokenizer.fingerprint}; put back the tokenizer.json of the run")


def write_weights(path: Path, weights: Weights, tokenizer: Tokenizer) -> None:
    """Tensors by name and the tokenizer's fingerprint into a file, written aside and renamed.

    Raises  OSError if the disk takes no more; what was there before is untouched.
    """
    partial = path.with_name(path.name + ".partial")
    whole = {name: tensor.detach().contiguous() for name, tensor in weights.items()}
    try:
        save_file(whole, partial, metadata={"format": "pt", "tokenizer": tokenizer.fingerprint})
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
        raise ValueError(f"{path} is damaged ({fault}); restore it, or remove its folder to go on from the "
                         "checkpoint before") from None


def untied(config: ModelConfig, weights: Weights) -> Weights:
    """The weights without the output layer's second name for the embedding, where the two are one."""
    return {name: tensor for name, tensor in weights.items() if not (config.tied and name == "head.weight")}


def finished(folder: Path) -> list[Path]:
    """The whole checkpoints step-000200, step-000400, ... in a folder, oldest first."""
    return sorted(path for path in Path(folder).glob("step-*") if path.suffix != ".partial")


def remove(folder: Path) -> None:
    """Delete a checkpoint so that an interruption never leaves half of one under its name."""
    doomed = folder.with_name(folder.name + ".partial")
    folder.rename(doomed)
    shutil.rmtree(doomed)
