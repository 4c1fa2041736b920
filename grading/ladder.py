"""The hint ladder: each different wrong answer to a question shows one hint more, until the answer is right.

What a question has climbed is kept in its own result.json, so a run that finds a result changes nothing. An attempt
that was never judged was never told anything, so it does not count.
"""

import hashlib

from grading.judge import BLANK, RIGHT, WRONG, Judgement
from grading.question import Question


def climb(question: Question, judgement: Judgement, answer: str, tried: list[str]) -> dict[str, list[str]]:
    """The marks of all different wrong answers so far, this one included, and the hints that are shown now.

    `tried` holds the marks from the result before this one. An open question shows the first hint.
    """
    if judgement.status == WRONG and (mark := mark_of(answer)) not in tried:
        tried = [*tried, mark]
    height = max(len(tried), judgement.status == BLANK)
    return {"tried": tried, "hints": [] if judgement.status == RIGHT else list(question.hints[:height])}


def mark_of(answer: str) -> str:
    """Tells answers apart; spaces at the ends of lines do not."""
    plain = "\n".join(line.rstrip() for line in answer.strip().splitlines())
    return hashlib.sha256(plain.encode(errors="surrogatepass")).hexdigest()[:16]


def tried_before(result: dict | None) -> dict[str, list[str]]:
    """By question id, the marks that a result holds."""
    return {question["id"]: question.get("tried", []) for question in (result or {}).get("questions", [])}
