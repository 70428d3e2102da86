"""Reads the fenced snippets, headings and links of Markdown files."""

import dataclasses
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

FENCE = re.compile(r"^(?P<indent> *)(?P<ticks>`{3,}) *(?P<info>\S*)[^\n]*$")
COMMENT = re.compile(r"(^|\s+)#.*")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)|(?:src|href)=\"([^\"]+)\"")


@dataclasses.dataclass(frozen=True)
class Snippet:
    """A fenced block of a Markdown file.

    Attributes:
        path: the file.
        line: number of its first line, counted from 1.
        language: what follows the opening fence, "" for nothing.
        text: its lines, without the indentation of the fence.
    """

    path: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.path.name}:{self.line}"


def read(path: Path) -> list[Snippet]:
    """Returns the fenced blocks of the file, in their order."""
    return list(_split(path)[0])


def prose(path: Path) -> str:
    """Returns the text of the file without its fenced blocks."""
    return _split(path)[1]


def _split(path: Path) -> tuple[list[Snippet], str]:
    snippets, outside, opening, inside = [], [], None, []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if opening is None:
            opening = FENCE.match(line)
            if opening is None:
                outside.append(line)
            start, inside = number + 1, []
        elif line.strip() == opening["ticks"]:
            text = "\n".join(one.removeprefix(opening["indent"]) for one in inside)
            snippets.append(Snippet(path, start, opening["info"], text))
            opening = None
        else:
            inside.append(line)
    assert opening is None, f"{path}: a fence that is not closed"
    return snippets, "\n".join(outside)


def anchors(path: Path) -> set[str]:
    """Returns the anchors of the file's headings, as GitHub and Sphinx make them."""
    headings = re.findall(r"^#+ +(.+?) *$", prose(path), re.MULTILINE)
    plain = [re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower() for heading in headings]
    return {re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in plain}


def inline(path: Path) -> list[str]:
    """Returns the inline code of the file, each on one line."""
    return [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", prose(path))]


def links(path: Path) -> list[str]:
    """Returns the targets of the file's links and images that are not addresses on the web."""
    found = (first or second for first, second in LINK.findall(prose(path)))
    return [target for target in found if not re.match(r"[a-z]+:", target)]


def commands(text: str) -> Iterator[list[str]]:
    """Yields the words of each simple command in the shell snippet `text`.

    Settings of variables in front of a command, keywords of loops and comments are left out.
    """
    for line in text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(COMMENT.sub("", line), posix=True, punctuation_chars=";&|()")
        lexer.whitespace_split, words = True, []
        for word in [*lexer, ";"]:
            if not set(word) <= set(";&|()"):
                words.append(word)
            elif words := _bare(words):
                yield words
                words = []


def _bare(words: list[str]) -> list[str]:
    while words and (re.match(r"\w+=", words[0]) or words[0] == "do"):
        words = words[1:]
    return [] if words and words[0] in ("for", "done", "wait") else words
