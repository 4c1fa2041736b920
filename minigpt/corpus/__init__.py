"""Text on its way to the model: documents are read, split and written as shards of token ids."""

from minigpt.corpus.parts import prepare_part, progress
from minigpt.corpus.prepare import prepare, training_texts
from minigpt.corpus.shards import Shards
from minigpt.corpus.sources import Document, in_validation, read_documents, read_split
from minigpt.corpus.write import check_shards, write_shards

__all__ = ["Document", "Shards", "check_shards", "in_validation", "prepare", "prepare_part", "progress",
           "read_documents", "read_split", "training_texts", "write_shards"]
