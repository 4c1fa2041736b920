"""What a run is made of: frozen dataclasses, checked once at birth, written as JSON beside every model."""

import dataclasses
import difflib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

VERSION = 1
"""The version of the format of config.json; it grows when an older minigpt would misread a newer file."""


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The shape of a GPT. GPT-NeoX and LLaMA differ in field values, not in code.

    Source  Black et al. 2022, "GPT-NeoX-20B"; Touvron et al. 2023, "LLaMA".
    """

    vocab_size: int
    """V: how many different tokens there are."""
    n_layers: int
    """How many blocks follow each other."""
    d_model: int
    """D: numbers per token between the blocks."""
    n_heads: int
    """H: attention heads a block."""
    n_kv_heads: int
    """G: heads that own keys and values; G = H is full attention, G < H is grouped."""
    d_ff: int
    """F: width inside the feed-forward part."""
    max_seq_len: int
    """The longest text in tokens."""
    norm: Literal["layernorm", "rmsnorm"] = "rmsnorm"
    mlp: Literal["gelu", "swiglu"] = "swiglu"
    parallel: bool = False
    """True: attention and feed-forward read the same input (NeoX); False: one after the other (LLaMA)."""
    rotary_fraction: float = 1.0
    """Share of each head's width that rotary positions turn; NeoX turns a quarter, LLaMA all."""
    rotary_base: float = 10_000.0
    bias: bool = False
    """Do the matrices of the blocks carry biases?"""
    tied: bool = False
    """Does the output layer reuse the embedding's weights?"""
    norm_eps: float = 1e-5
    attention_pieces: int = 1
    """1: PyTorch's fused attention. n: matrix products over n pieces of the text, much faster with bf16 on a CPU."""

    def __post_init__(self) -> None:
        check_choices(self)
        check_positive(self, "vocab_size", "n_layers", "d_model", "n_heads", "n_kv_heads", "d_ff", "max_seq_len",
                       "attention_pieces")
        if self.d_model % self.n_heads:
            raise ValueError(
                f"d_model {self.d_model} is not divisible by n_heads {self.n_heads}; "
                f"choose {nearest_divisor(self.d_model, self.n_heads)} heads or another width"
            )
        if self.n_heads % self.n_kv_heads:
            raise ValueError(
                f"n_heads {self.n_heads} is not divisible by n_kv_heads {self.n_kv_heads}; "
                f"choose {nearest_divisor(self.n_heads, self.n_kv_heads)} key/value heads"
            )
        if not 0 <= self.rotary_fraction <= 1:
            raise ValueError(f"rotary_fraction is {self.rotary_fraction} but must lie between 0 and 1")
        check_above_zero(self, "rotary_base", "norm_eps")
        if self.rotary_width % 2:
            raise ValueError(
                f"rotary_fraction {self.rotary_fraction} of a head of width {self.d_head} turns "
                f"{self.rotary_width} numbers, but they turn in pairs; choose an even number of them"
            )

    @property
    def d_head(self) -> int:
        """K: the width of one head."""
        return self.d_model // self.n_heads

    @property
    def rotary_width(self) -> int:
        """How many of a head's K numbers rotary positions turn."""
        return int(self.d_head * self.rotary_fraction)

    @property
    def n_matmul_parameters(self) -> int:
        """Weights that multiply every token: all matrices of the blocks and the output layer, no embedding."""
        attention = 2 * self.d_model * (self.n_heads + self.n_kv_heads) * self.d_head
        feed_forward = (3 if self.mlp == "swiglu" else 2) * self.d_model * self.d_ff
        return self.n_layers * (attention + feed_forward) + self.d_model * self.vocab_size

    @property
    def n_parameters(self) -> int:
        """Every trained number of the model, exactly."""
        norm = self.d_model * (2 if self.norm == "layernorm" else 1)
        biases = 0
        if self.bias:
            attention = (self.n_heads + 2 * self.n_kv_heads) * self.d_head + self.d_model
            biases = attention + (2 if self.mlp == "swiglu" else 1) * self.d_ff + self.d_model
        embedding = 0 if self.tied else self.vocab_size * self.d_model
        return self.n_matmul_parameters + embedding + self.n_layers * (2 * norm + biases) + norm

    @property
    def n_embedding_parameters(self) -> int:
        """The tables that turn ids into vectors and vectors into scores; one table if they are tied."""
        return self.vocab_size * self.d_model * (1 if self.tied else 2)

    @property
    def flops_per_token(self) -> int:
        """Floating-point operations to train on one token of a full-length text: forward and backward.

        Each weight costs one multiplication and one addition forward and twice that backward (6 a weight);
        attention compares the token with max_seq_len others in every layer (12 L D T).
        Source  Chowdhery et al. 2022, "PaLM", appendix B.
        """
        return 6 * self.n_matmul_parameters + 12 * self.n_layers * self.d_model * self.max_seq_len

    @property
    def flops_per_token_6n(self) -> int:
        """The rule of thumb for the same: six operations for every parameter, attention's comparisons left out.

        It gives 3 % less than the formula for neox_1b and 36 % less for llama_125m, which is deep and thin.
        Source  Hoffmann et al. 2022, "Training Compute-Optimal Large Language Models", appendix F.
        """
        return 6 * self.n_parameters


DocumentMode = Literal["cross", "apart", "pack"]


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Where the text comes from and how it is cut."""

    source: str = "stdlib"
    """`stdlib`, a file, a folder, a pattern, or `hub:OWNER/NAME`; see minigpt.corpus.read_documents."""
    text_field: str = "text"
    """The column that holds the text in JSON lines, parquet and hub data sets."""
    max_megabytes: float = 0.0
    """Stop reading after so many million bytes of text; 0 reads all."""
    validation_share: float = 0.05
    """Share of the documents that is kept out of training."""
    tokenizer_megabytes: float = 2.0
    """How much training text the tokenizer learns its merges from."""
    documents: DocumentMode = "cross"
    """May a window of training text look across documents, keep them apart, or hold whole ones; see corpus.Shards."""

    def __post_init__(self) -> None:
        check_choices(self)
        if not self.source:
            raise ValueError("the data source is empty; name `stdlib`, a file, a folder or `hub:OWNER/NAME`")
        if not 0 < self.validation_share < 1:
            raise ValueError(f"validation_share is {self.validation_share} but must lie between 0 and 1")
        if self.max_megabytes < 0 or self.tokenizer_megabytes <= 0:
            raise ValueError("max_megabytes and tokenizer_megabytes are sizes; give positive numbers")


Sharding = Literal["full", "gradients", "hybrid", "none"]
"""How FSDP2 spreads weights, gradients and moments over the processes.

full: each keeps a share of everything and gathers a block's weights when it computes the block.
gradients: like full, but the gathered weights stay from the way forward to the way back: more memory, fewer messages.
hybrid: full within a node, copies among nodes.
none: copies on every process; only gradients travel.
Source  The documentation of torch.distributed.fsdp.fully_shard: meshes of one and two sides, reshard_after_forward.
"""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How the weights are found."""

    steps: int
    """How many times the optimizer moves the weights."""
    batch_size: int
    """Sequences a step, over all processes and accumulated pieces together."""
    accumulate: int = 1
    """In how many pieces each process computes its share of the batch."""
    learning_rate: float = 3e-4
    min_learning_rate: float = 0.0
    warmup_steps: int = 0
    schedule: Literal["cosine", "wsd"] = "cosine"
    """How the learning rate falls after the warm-up: along a cosine, or constant and then down (wsd)."""
    cooldown_share: float = 0.2
    """With wsd: the share of the steps, at the end, in which the learning rate comes down."""
    weight_decay: float = 0.1
    beta1: float = 0.9
    beta2: float = 0.95
    clip: float = 1.0
    """The longest gradient allowed; longer ones are scaled down to it."""
    precision: Literal["32-true", "bf16-mixed", "bf16-true"] = "bf16-mixed"
    float32_matmul: Literal["highest", "high", "medium"] = "highest"
    """How exact products of float32 matrices are; see torch.set_float32_matmul_precision."""
    compile: bool = False
    """Compile the blocks and the loss: tens of seconds at the start, then faster steps."""
    loss_chunk: int = 0
    """Compute the loss of so many tokens at a time: less memory, the same work; 0: all at once."""
    seed: int = 0
    log_every: int = 10
    evaluate_every: int = 200
    evaluate_tokens: int = 100_000
    """How many validation tokens an evaluation reads."""
    save_every: int = 200
    keep_checkpoints: int = 2
    """How many of the newest checkpoints are kept."""
    keep_every: int = 0
    """Of the checkpoints, those at multiples of so many steps are never removed; 0: none of them."""
    async_checkpoints: bool = False
    """Write checkpoints beside the steps that follow, at most one at a time."""
    sharding: Sharding = "full"
    """What several processes keep shares of, and what copies; see `Sharding`."""
    activation_checkpointing: bool = False
    """Keep only the input of each block and compute the block again on the way back: less memory, a third more work."""
    rewind: bool = False
    """On a spike of the loss, go back to the last checkpoint before it and leave out the batches up to the spike's."""
    watts: float = 0.0
    """The power of one process's share of the machine, for machines that do not measure it; see minigpt.energy."""
    wandb: str = ""
    """The Weights & Biases project that gets the log too; empty: none."""

    def __post_init__(self) -> None:
        check_choices(self)
        check_positive(self, "steps", "batch_size", "accumulate", "log_every", "evaluate_every", "evaluate_tokens",
                       "save_every", "keep_checkpoints")
        if self.keep_every < 0 or self.keep_every % self.save_every:
            raise ValueError(f"keep_every is {self.keep_every} but a checkpoint comes every {self.save_every} steps "
                             "(save_every); choose a multiple of that, or 0 to keep the newest alone")
        if not self.clip > 0:
            raise ValueError(f"clip is {self.clip} but is the longest gradient allowed; give a positive number, "
                             "a very large one such as 1e9 for no clipping")
        if self.seed < 0:
            raise ValueError(f"seed is {self.seed} but must not be negative; choose another")
        if not self.weight_decay >= 0:
            raise ValueError(f"weight_decay is {self.weight_decay} but must not be negative; 0 decays nothing")
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)} but must be at least 0 and below 1; "
                                 "0.9 (beta1) and 0.95 (beta2) are usual")
        if self.loss_chunk < 0:
            raise ValueError(f"loss_chunk is {self.loss_chunk} but counts tokens; 0 takes all of them at once")
        if self.batch_size % self.accumulate:
            raise ValueError(
                f"batch_size {self.batch_size} cannot be cut into {self.accumulate} equal pieces; "
                f"choose accumulate {nearest_divisor(self.batch_size, self.accumulate)}"
            )
        if not 0 <= self.min_learning_rate <= self.learning_rate:
            raise ValueError(
                f"min_learning_rate {self.min_learning_rate} must lie between 0 and "
                f"learning_rate {self.learning_rate}; change one of them"
            )
        if not 0 <= self.warmup_steps <= self.steps:
            raise ValueError(f"warmup_steps is {self.warmup_steps} but must lie between 0 and steps {self.steps}")
        if not 0 <= self.cooldown_share <= 1:
            raise ValueError(f"cooldown_share is {self.cooldown_share} but must lie between 0 and 1")
        if self.schedule == "wsd" and self.warmup_steps + self.cooldown_steps > self.steps:
            raise ValueError(f"warm-up ({self.warmup_steps}) and cooldown ({self.cooldown_steps}) take more than the "
                             f"{self.steps} steps; shorten one of them")
        if self.watts < 0:
            raise ValueError(f"watts is {self.watts} but must not be negative; 0 leaves the power to minigpt.energy")

    @property
    def cooldown_steps(self) -> int:
        """How many steps at the end the learning rate comes down in, if the schedule is wsd."""
        return round(self.cooldown_share * self.steps)


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Everything that decides what a training run computes."""

    name: str
    model: ModelConfig
    data: DataConfig = field(default_factory=DataConfig)
    train: TrainConfig

    def __post_init__(self) -> None:
        if not self.name or self.name in {".", ".."} or "/" in self.name or "\\" in self.name:
            raise ValueError(f"a run's name is the name of its folder, but got {self.name!r}; use letters and digits")

    @property
    def tokens_per_step(self) -> int:
        """Training tokens that one optimizer step reads."""
        return self.train.batch_size * self.model.max_seq_len

    def differences(self, other: "RunConfig") -> list[str]:
        """Sentences such as `train.steps is 600 there and 300 here`, one for each field that differs."""
        mine, theirs = flatten(dataclasses.asdict(self)), flatten(dataclasses.asdict(other))
        return [f"{key} is {theirs[key]} there and {mine[key]} here" for key in mine if mine[key] != theirs[key]]

    def to_json(self) -> str:
        return json.dumps({"version": VERSION} | dataclasses.asdict(self), indent=2) + "\n"

    @classmethod
    def read(cls, path: Path) -> "RunConfig":
        """The config in a JSON file; fields that are younger than the file get their defaults.

        Raises  ValueError, naming them, if fields are unknown, missing or of another kind, or if a newer minigpt wrote
                the file.
        """
        values = read_fields(path)
        version = values.pop("version", 1)
        check_kind(path, "version", version, int)
        if version > VERSION:
            raise ValueError(f"{path} has version {version} but this minigpt reads versions up to {VERSION}; "
                             "install a newer minigpt")
        return build(cls, values, str(path))


def read_fields(path: Path) -> dict[str, Any]:
    """The named values in a JSON file. Raises ValueError if there is no such file or if it holds something else."""
    try:
        values = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"there is no config at {path}; give the folder of a run, a checkpoint or a model") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as fault:
        raise ValueError(f"{path} is not JSON ({fault}); restore the file or train again") from None
    check_kind(path, "the whole file", values, dict)
    return values


KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", dict: "a list of named fields"}


def check_kind(where: Path | str, name: str, value: Any, kind: type) -> None:
    """Raises ValueError, naming file and field, if a value from JSON is not of this kind. 3 is a number too."""
    if kind in KINDS and type(value) is not kind and (kind, type(value)) != (float, int):
        raise ValueError(f"{where} has {value!r:.60} where {name} should be {KINDS[kind]}; correct or restore the file")


def build(kind: type, values: dict[str, Any], where: str) -> Any:
    """An instance of a config dataclass from nested dictionaries."""
    names = {f.name for f in dataclasses.fields(kind)}
    if unknown := [name for name in values if name not in names]:
        near = [other for name in unknown for other in difflib.get_close_matches(name, names, n=3)]
        raise ValueError(
            f"{where} has {', '.join(map(repr, unknown))} that {kind.__name__} does not know; "
            f"near names: {', '.join(near or sorted(names))}"
        )
    required = {f.name for f in dataclasses.fields(kind)
                if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING}
    if missing := sorted(required - set(values)):
        raise ValueError(f"{where} lacks the field {missing[0]!r} of {kind.__name__}; add it")
    hints = get_type_hints(kind)
    nested = {}
    for name, value in values.items():
        inner = dataclasses.is_dataclass(hints[name])
        check_kind(where, name, value, dict if inner else hints[name])
        nested[name] = build(hints[name], value, where) if inner else value
    return kind(**nested)


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as one, with dotted names."""
    flat = {}
    for key, value in values.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def check_positive(config: Any, *names: str) -> None:
    """Raises ValueError, naming the field, if one of these is less than 1."""
    for name in names:
        if getattr(config, name) < 1:
            raise ValueError(f"{name} is {getattr(config, name)} but must be at least 1; give a positive number")


def check_above_zero(config: Any, *names: str) -> None:
    """Raises ValueError, naming the field, if one of these is 0, less, or NaN."""
    for name in names:
        if not getattr(config, name) > 0:
            raise ValueError(f"{name} is {getattr(config, name)} but must be above 0; give a positive number")


def check_choices(config: Any) -> None:
    """Raises ValueError, naming the field and its choices, if one that has a list of them holds something else."""
    for name, hint in get_type_hints(type(config)).items():
        if get_origin(hint) is Literal and getattr(config, name) not in get_args(hint):
            raise ValueError(f"{name} is {getattr(config, name)!r} but must be one of {', '.join(get_args(hint))}")


def nearest_divisor(number: int, wanted: int) -> int:
    """The divisor of `number` that lies nearest to `wanted`."""
    return min((d for d in range(1, number + 1) if number % d == 0), key=lambda d: abs(d - wanted))
