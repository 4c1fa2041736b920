"""Text on its way to the model: documents are read, split and written as shards of token ids."""

from minigpt.corpus.prepare import prepare
from minigpt.corpus.shards import Shards, write_shards
from minigpt.corpus.sources import Document, in_validation, read_documents

__all__ = ["Document", "Shards", "in_validation", "prepare", "read_documents", "write_shards"]
