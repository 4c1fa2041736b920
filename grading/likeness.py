"""Pairs of students whose answers are too alike, by copydetect (winnowing, the method of MOSS).

Compared is the text of each answer cell with names and comments left out, so renaming hides nothing. What the
starter code, the solution and the listed answers of the checks contain counts for nobody.
Source  Schleimer, Wilkerson and Aiken 2003, "Winnowing: Local Algorithms for Document Fingerprinting".
"""

import io
from dataclasses import dataclass
from itertools import combinations

from copydetect import CodeFingerprint, compare_files
from copydetect.utils import get_token_coverage

from grading.course import Lab
from grading.question import Question

GRAM = 25  # signs of a fingerprint; copydetect's own default
SHORTEST = 100  # signs that two answers must share: two honest answers to a short question are often the same
ALIKE = 0.8  # share of both answers' own signs


@dataclass(frozen=True)
class Alike:
    """Two students' answers to one question."""

    first: str
    second: str
    question: str
    share: float  # of the own signs of the answer that shares less
    n_signs: int


def fingerprint(question: Question, text: str) -> CodeFingerprint:
    """The fingerprints of a text: all of them, so that nothing depends on Python's seed for hashes."""
    stream = io.StringIO(text)
    return CodeFingerprint(question.id, GRAM, 1, language="python", fp=stream, filter=not question.written)


def own_lines(text: str, blank: str) -> str:
    """The text without the lines of the starter code."""
    starter = {line.strip() for line in blank.splitlines()}
    return "\n".join(line for line in text.splitlines() if line.strip() not in starter)


def known_hashes(lab: Lab, question: Question) -> set[int]:
    """The fingerprints of what the course itself has written about a question."""
    blank = lab.blank(question).source
    answers = [lab.model_answer(question).source, *(a.source for a in (*question.right, *question.wrong))]
    texts = [blank, *answers, *(own_lines(answer, blank) for answer in answers)]
    return set().union(*(fingerprint(question, text).hashes for text in texts))


def without(print_: CodeFingerprint, known: set[int]) -> CodeFingerprint:
    """The fingerprint less what is known.

    copydetect can do this itself, but takes fingerprints that repeat within an answer for known ones.
    """
    print_.hashes = print_.hashes - known
    print_.hash_idx = {value: places for value, places in print_.hash_idx.items() if value in print_.hashes}
    print_.token_coverage = get_token_coverage(print_.hash_idx, GRAM, len(print_.filtered_code))
    return print_


def find_alike(lab: Lab, answers: dict[str, dict[str, str]]) -> list[Alike]:
    """The pairs whose answers to a question are alike; `answers` holds by student the text by question id."""
    found = []
    for question in lab.questions:
        blank, known = lab.blank(question).source, known_hashes(lab, question)
        prints = {
            student: without(fingerprint(question, own_lines(texts[question.id], blank)), known)
            for student, texts in sorted(answers.items())
            if question.id in texts
        }
        long = {student: each for student, each in prints.items() if each.token_coverage >= SHORTEST}
        for (first, a), (second, b) in combinations(long.items(), 2):
            n_signs, share = compare(a, b)
            if n_signs >= SHORTEST and share >= ALIKE:
                found.append(Alike(first, second, question.id, share, n_signs))
    return found


def compare(a: CodeFingerprint, b: CodeFingerprint) -> tuple[int, float]:
    """How many signs two answers share, and the share of the one that shares less."""
    if a.hashes.isdisjoint(b.hashes):
        return 0, 0.0
    n_signs, shares, _ = compare_files(a, b)
    return int(n_signs), float(min(1.0, *shares))
