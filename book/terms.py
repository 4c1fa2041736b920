"""A Sphinx extension: a word in bold that the glossary defines leads there.

Chapters set a word in bold once, where it is defined; this makes the glossary reachable from that place.
"""

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.nodes import make_refnode


def entry_of(text: str, terms: dict[str, tuple[str, str]]) -> tuple[str, str] | None:
    """Page and anchor of the glossary's entry for a bold text, in singular or plural, a verb with or without "to"."""
    word = text.strip().lower()
    forms = (word, word.removesuffix("s"), word.removesuffix("es"), f"to {word}", f"to {word.removesuffix('s')}")
    return next((terms[form] for form in forms if form in terms), None)


def glossary(app: Sphinx) -> dict[str, tuple[str, str]]:
    """Page and anchor of every term, by the term in small letters."""
    objects = app.env.get_domain("std").get_objects()
    return {name.lower(): (page, anchor) for name, _, kind, page, anchor, _ in objects if kind == "term"}


def link_bold_terms(app: Sphinx, tree: nodes.document, page: str) -> None:
    terms = glossary(app)
    for bold in list(tree.findall(nodes.strong)):
        target = entry_of(bold.astext(), terms)
        inside_a_link = isinstance(bold.parent, nodes.reference)
        if target and target[0] != page and not inside_a_link:
            link = make_refnode(app.builder, page, *target, bold.deepcopy(), bold.astext())
            link["classes"].append("glossary-term")
            bold.replace_self(link)


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("doctree-resolved", link_bold_terms)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
