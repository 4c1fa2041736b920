"""Recipes: functions that return a whole run. Laptop and cluster differ in these numbers and in nothing else."""

from collections.abc import Callable

from minigpt.config import DataConfig, ModelConfig, RunConfig, TrainConfig


def journey() -> RunConfig:
    """A LLaMA-style model that learns Python in about a minute on two cores."""
    return RunConfig(
        name="journey",
        model=ModelConfig(vocab_size=512, n_layers=3, d_model=128, n_heads=4, n_kv_heads=4, d_ff=344,
                          max_seq_len=128),
        data=DataConfig(source="stdlib"),
        train=TrainConfig(steps=800, batch_size=16, learning_rate=6e-3, min_learning_rate=6e-4, warmup_steps=30),
    )


def neox_125m() -> RunConfig:
    """A 162-million-parameter GPT-NeoX: the shape, learning rates and warm-up of EleutherAI's 125M.yml.

    About 20 tokens a parameter, 3.2 billion. The count includes the embedding and the output layer, which are not
    tied; without them it is the 85 million of Pythia-160M.
    Source  EleutherAI, gpt-neox, configs/125M.yml; model card of Pythia-160M; Hoffmann et al. 2022, "Training
            Compute-Optimal Large Language Models". The batch of half a million tokens is that of Brown et al. 2020,
            "Language Models are Few-Shot Learners", table 2.1. The data is this course's own.
    """
    return RunConfig(
        name="neox_125m",
        model=ModelConfig(vocab_size=50_304, n_layers=12, d_model=768, n_heads=12, n_kv_heads=12, d_ff=3072,
                          max_seq_len=2048, norm="layernorm", mlp="gelu", parallel=True, rotary_fraction=0.25,
                          bias=True),
        data=DataConfig(source="hub:HuggingFaceFW/fineweb-edu", validation_share=0.001, tokenizer_megabytes=1000),
        train=TrainConfig(steps=6200, batch_size=256, accumulate=16, learning_rate=6e-4, min_learning_rate=6e-5,
                          warmup_steps=62, save_every=500, evaluate_every=500, evaluate_tokens=2_000_000),
    )


def llama_125m() -> RunConfig:
    """A 124.6-million-parameter LLaMA, deep and thin, with grouped heads: the shape of MobileLLM-125M.

    About 20 tokens a parameter, 2.5 billion; constant learning rate with a cooldown, so that one run can be cooled
    down at several lengths.
    Source  Liu et al. 2024, "MobileLLM", and its model card; Hoffmann et al. 2022, "Training Compute-Optimal Large
            Language Models"; Hu et al. 2024, "MiniCPM". Batch and learning rate are those of neox_125m.
    """
    return RunConfig(
        name="llama_125m",
        model=ModelConfig(vocab_size=32_000, n_layers=30, d_model=576, n_heads=9, n_kv_heads=3, d_ff=1536,
                          max_seq_len=2048, tied=True),
        data=DataConfig(source="hub:HuggingFaceFW/fineweb-edu", validation_share=0.001, tokenizer_megabytes=1000),
        train=TrainConfig(steps=4750, batch_size=256, accumulate=16, learning_rate=6e-4, min_learning_rate=6e-5,
                          warmup_steps=100, schedule="wsd", save_every=500, evaluate_every=500,
                          evaluate_tokens=2_000_000),
    )


def neox_1b() -> RunConfig:
    """A 1.0-billion-parameter GPT-NeoX: the shape, batch, steps and learning rate of Pythia-1B.

    Everything is shared out (full), nothing is computed twice, and a step is made of 8 pieces: that is what
    `minigpt plan neox_1b` finds best for eight GPUs of 80 GB, where pieces of 16 texts take 64 of them.
    Source  EleutherAI, model card of Pythia-1B. The data and the warm-up are this course's own.
    """
    return RunConfig(
        name="neox_1b",
        model=ModelConfig(vocab_size=50_304, n_layers=16, d_model=2048, n_heads=8, n_kv_heads=8, d_ff=8192,
                          max_seq_len=2048, norm="layernorm", mlp="gelu", parallel=True, rotary_fraction=0.25,
                          bias=True),
        data=DataConfig(source="hub:HuggingFaceFW/fineweb-edu", validation_share=0.001, tokenizer_megabytes=1000),
        train=TrainConfig(steps=143_000, batch_size=1024, accumulate=8, sharding="full", learning_rate=3e-4,
                          min_learning_rate=3e-5, warmup_steps=1430, save_every=1000, evaluate_every=1000,
                          evaluate_tokens=10_000_000),
    )


def llama_1b() -> RunConfig:
    """A 1.1-billion-parameter LLaMA with grouped heads: the shape, batch, learning rate and warm-up of TinyLlama.

    Everything is shared out (full), nothing is computed twice, and a step is made of 16 pieces: that is what
    `minigpt plan llama_1b` finds best for eight GPUs of 80 GB, where pieces of 8 texts take 44 of them and 16 too many.
    Source  TinyLlama, model card, "Training details". The data and the number of steps are this course's own.
    """
    return RunConfig(
        name="llama_1b",
        model=ModelConfig(vocab_size=32_000, n_layers=22, d_model=2048, n_heads=32, n_kv_heads=4, d_ff=5632,
                          max_seq_len=2048),
        data=DataConfig(source="hub:HuggingFaceFW/fineweb-edu", validation_share=0.001, tokenizer_megabytes=1000),
        train=TrainConfig(steps=143_000, batch_size=1024, accumulate=16, sharding="full", learning_rate=4e-4,
                          min_learning_rate=4e-5, warmup_steps=2000, save_every=1000, evaluate_every=1000,
                          evaluate_tokens=10_000_000),
    )


RECIPES: dict[str, Callable[[], RunConfig]] = {
    recipe.__name__: recipe for recipe in (journey, neox_125m, llama_125m, neox_1b, llama_1b)}


def recipe(name: str) -> RunConfig:
    """The run that a recipe's name stands for."""
    if name not in RECIPES:
        raise ValueError(f"there is no recipe {name!r}; choose one of {', '.join(RECIPES)}")
    return RECIPES[name]()
