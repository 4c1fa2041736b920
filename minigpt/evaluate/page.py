"""A page of titles, sentences, tables, figures and code, as Markdown and as one HTML file that needs nothing else."""

from dataclasses import dataclass
from html import escape

from minigpt.evaluate.figures import NARROW, WIDE, Drawing, svg


@dataclass(frozen=True)
class Title:
    text: str


@dataclass(frozen=True)
class Text:
    text: str


@dataclass(frozen=True)
class Table:
    columns: list[str]
    rows: list[list[str]]


@dataclass(frozen=True)
class Picture:
    """A figure: its file for Markdown, what it shows in words, and how it is drawn."""

    file: str
    caption: str
    draw: Drawing


@dataclass(frozen=True)
class Code:
    language: str
    text: str


Block = Title | Text | Table | Picture | Code


def markdown(title: str, blocks: list[Block]) -> str:
    return "\n\n".join([f"# {title}", *map(to_markdown, blocks)]) + "\n"


def to_markdown(block: Block) -> str:
    match block:
        case Title(text):
            return f"## {text}"
        case Text(text):
            return text
        case Table(columns, rows):
            lines = [columns, ["---"] * len(columns), *rows]
            return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
        case Picture(file, caption, _):
            return f"![{caption}]({file})"
        case Code(language, text):
            fence = "````" if "```" in text else "```"
            return f"{fence}{language}\n{text.rstrip()}\n{fence}"


def html(title: str, blocks: list[Block]) -> str:
    body = "\n".join(map(to_html, blocks))
    return (f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{escape(title)}</title>\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<style>{STYLE}</style>\n</head>\n<body>\n<main>\n<h1>{escape(title)}</h1>\n{body}\n</main>\n</body>\n"
            "</html>\n")


def to_html(block: Block) -> str:
    match block:
        case Title(text):
            return f"<h2>{escape(text)}</h2>"
        case Text(text):
            return f"<p>{escape(text)}</p>"
        case Table(columns, rows):
            head = "".join(f"<th>{escape(column)}</th>" for column in columns)
            lines = "\n".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
            return (f'<div class="table"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{lines}\n</tbody></table>'
                    "</div>")
        case Picture(file, caption, draw):
            sizes = "".join(f'<div class="{name}">{svg(f"{file} {name}", draw, size)}</div>'
                            for name, size in (("wide", WIDE), ("narrow", NARROW)))
            return (f'<figure role="img" aria-label="{escape(caption)}">{sizes}'
                    f"<figcaption>{escape(caption)}</figcaption></figure>")
        case Code(_, text):
            return f"<pre><code>{escape(text.rstrip())}</code></pre>"


STYLE = """
:root { color-scheme: light dark; --paper: #ffffff; --panel: #f4f4f2; --ink: #1a1a1a; --muted: #6f6f6f;
  --faint: #cfcfcf; --accent: #1c6fb0; --warning: #c0392b; }
@media (prefers-color-scheme: dark) { :root { --paper: #16181b; --panel: #202327; --ink: #e6e6e6; --muted: #a0a0a0;
  --faint: #4a4d52; --accent: #6cb2eb; --warning: #ff7b6b; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
main { max-width: 50rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
h1 { font-size: 1.7rem; margin: 0 0 .5rem; }
h2 { font-size: 1.2rem; margin: 2.2rem 0 .6rem; }
.table { overflow-x: auto; }
table { border-collapse: collapse; font-size: .92rem; font-variant-numeric: tabular-nums; }
th, td { text-align: left; vertical-align: top; padding: .3rem 1.2rem .3rem 0; border-bottom: 1px solid var(--faint);
  overflow-wrap: anywhere; min-width: 5.5rem; }
th { color: var(--muted); font-weight: 600; overflow-wrap: normal; }
figure { margin: 1rem 0; }
figure svg { display: block; width: 100%; height: auto; }
figure .narrow { display: none; }
figcaption { color: var(--muted); font-size: .88rem; }
pre { background: var(--panel); padding: .8rem 1rem; overflow-x: auto; font-size: .85rem; line-height: 1.4; }
@media (max-width: 560px) { figure .wide { display: none; } figure .narrow { display: block; }
  th, td { padding-right: .7rem; } }
"""
