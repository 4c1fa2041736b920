"""A checkpoint is a folder: config.json, model.safetensors and tokenizer.json; ours or Hugging Face's.

Where several processes trained, each wrote its share of the weights into a file shard-*.safetensors of its own, and
these stand in the place of model.safetensors. manifest.json, written last, has the size and the hash of every file.
"""

import json
import re
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch.distributed.checkpoint.api import CheckpointException

from minigpt import huggingface
from minigpt.config import ModelConfig, RunConfig, read_fields
from minigpt.disk import sha256, whole_folder, write_text
from minigpt.huggingface import Weights
from minigpt.model import GPT
from minigpt.tokenizer import Tokenizer

MANIFEST = "manifest.json"


def save(folder: Path, config: RunConfig, weights: Weights, tokenizer: Tokenizer) -> Path:
    """The folder, written whole or not at all."""
    with whole_folder(folder) as partial:
        (partial / "config.json").write_text(config.to_json(), encoding="utf-8")
        tokenizer.save(partial / "tokenizer.json")
        write_weights(partial / "model.safetensors", untied(config.model, weights), tokenizer)
    return Path(folder)


def load(folder: Path) -> tuple[GPT, Tokenizer, RunConfig]:
    """The model, its tokenizer and the run that made it.

    Raises  ValueError if a file is missing or cut short, if the weights are not those of the config, or if they
            were trained with another tokenizer.
    """
    folder = Path(folder)
    config = RunConfig.read(folder / "config.json")
    tokenizer = Tokenizer.load(folder / "tokenizer.json")
    check_tokenizer(folder, tokenizer)
    model, shared = GPT(config.model), sorted(folder.glob("shard-*.safetensors"))
    found = assemble(folder) if shared else read_weights(folder / "model.safetensors")
    load_weights(model, found, folder if shared else folder / "model.safetensors")
    return model.eval(), tokenizer, config


def fill(tensors: Weights, folder: Path, group: dist.ProcessGroup | None = None) -> None:
    """Read tensors, whole ones or a process's shares of them, from a checkpoint of however many processes.

    Raises  ValueError, naming the tensor, if the checkpoint has others or other shapes.
    """
    check_tensors(tensors, outline(folder), folder)
    read_into(tensors, folder, group)


def assemble(folder: Path) -> Weights:
    """The weights of a checkpoint that several processes wrote, whole, in one process."""
    weights = {name: torch.empty_like(tensor, device="cpu") for name, tensor in outline(folder).items()
               if "/" not in name}
    read_into(weights, folder)
    return weights


def read_into(tensors: Weights, folder: Path, group: dist.ProcessGroup | None = None) -> None:
    with plain_faults(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")  # one process is no fault
        dcp.load(dict(tensors), storage_reader=dcp.HuggingFaceStorageReader(str(folder)), process_group=group,
                 no_dist=group is None)


def write_share(tensors: Weights, folder: Path, group: dist.ProcessGroup) -> None:
    """Each process's shares of the tensors into a file of its own. Raises OSError in all if one cannot write."""
    writer = dcp.HuggingFaceStorageWriter(str(folder), save_distributed=True)
    with plain_faults():
        dcp.save(dict(tensors), storage_writer=writer, process_group=group)


@contextmanager
def plain_faults() -> Iterator[None]:
    """What went wrong in a process, in place of torch's account of all processes."""
    try:
        yield
    except CheckpointException as account:
        fault = next(iter(account.failures.values()))[0]
        raise fault from None


def outline(folder: Path) -> Weights:
    """Every tensor of a checkpoint, without its numbers. Raises ValueError if a file is missing or cut short."""
    if fault := damage(folder):
        raise ValueError(f"{folder} is damaged ({fault}); restore it from a copy")
    found = dcp.HuggingFaceStorageReader(str(folder)).read_metadata().state_dict_metadata
    return {name: torch.empty(there.size, dtype=there.properties.dtype, device="meta") for name, there in found.items()}


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
    config = huggingface.from_config(read_fields(folder / "config.json"))
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


def check_tokenizer(folder: Path, tokenizer: Tokenizer) -> None:
    """Raises ValueError, naming both, if the weights of the folder were trained with another tokenizer."""
    path = folder / "model.safetensors"
    if path.exists() or not (folder / MANIFEST).exists():
        trained_with = _read(path, lambda file: file.metadata() or {}).get("tokenizer", "none")
    else:
        trained_with = read_manifest(folder)["tokenizer"]
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
        partial.replace(path)
    except SafetensorError as fault:
        raise OSError(None, f"the weights could not be written ({fault})", str(path)) from None
    finally:
        partial.unlink(missing_ok=True)  # what a full disk has taken of it


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


def stamp(path: Path) -> dict[str, Any]:
    """What a manifest says of a file."""
    return {"bytes": path.stat().st_size, "sha256": sha256(path)}


def write_manifest(folder: Path, tokenizer: Tokenizer, stamps: dict[str, dict[str, Any]]) -> None:
    """Write what every file of a checkpoint holds, last of all: a checkpoint without it is not whole."""
    text = json.dumps({"tokenizer": tokenizer.fingerprint, "files": dict(sorted(stamps.items()))}, indent=1)
    write_text(folder / MANIFEST, text + "\n")


def read_manifest(folder: Path) -> dict[str, Any]:
    return json.loads((folder / MANIFEST).read_text(encoding="utf-8"))


def damage(folder: Path, hashed: slice = slice(0)) -> str:
    """What is wrong with a checkpoint's files, or nothing: all are measured, those of the slice read and compared."""
    try:
        files = read_manifest(folder)["files"]
    except (FileNotFoundError, json.JSONDecodeError, UnicodeDecodeError, KeyError):
        return f"its {MANIFEST} is missing or damaged"
    for name, written in files.items():
        path = folder / name
        if not path.exists():
            return f"{name} is missing"
        if path.stat().st_size != written["bytes"]:
            return f"{name} has {path.stat().st_size:,} bytes and had {written['bytes']:,} when it was written"
    read = sorted(files)[hashed]
    return next((f"{name} is not what was written" for name in read if stamp(folder / name) != files[name]), "")


def finished(folder: Path) -> list[Path]:
    """The whole checkpoints step-000200, step-000400, ... in a folder, oldest first."""
    found = [path for path in Path(folder).glob("step-*") if re.fullmatch(r"step-\d+", path.name)]
    return sorted(found, key=step_of)


def step_of(folder: Path) -> int:
    """After how many steps a checkpoint was made."""
    return int(folder.name.removeprefix("step-"))


def put_aside(folder: Path) -> Path:
    """Where a damaged checkpoint lies from now on: under a name that no run goes on from."""
    aside = folder.with_name(folder.name + ".damaged")
    shutil.rmtree(aside, ignore_errors=True)
    return folder.rename(aside)


def remove(folder: Path) -> None:
    """Delete a checkpoint so that an interruption never leaves half of one under its name."""
    doomed = folder.with_name(folder.name + ".partial")
    folder.rename(doomed)
    shutil.rmtree(doomed)
