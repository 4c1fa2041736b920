"""What a model is worth: its log, loss, bits per byte, the ladder of simple models, and the report card."""

from minigpt.evaluate.ladder import ladder
from minigpt.evaluate.log import read_log
from minigpt.evaluate.loss import bits_per_byte, validation_loss
from minigpt.evaluate.parsing import parse_rate, parses
from minigpt.evaluate.report import write_report
from minigpt.evaluate.scores import evaluate_run

__all__ = ["bits_per_byte", "evaluate_run", "ladder", "parse_rate", "parses", "read_log",
           "validation_loss", "write_report"]
