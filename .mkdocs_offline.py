"""The site opens from disk, without a network: what its pages load lies beside them."""

import logging
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

# A warning ends a strict build.
_LOG = logging.getLogger("mkdocs.hooks.offline")
_ATTRIBUTES = {
    "script": ("src",), "img": ("src", "srcset"), "source": ("src", "srcset"), "iframe": ("src",),
    "embed": ("src",), "audio": ("src",), "video": ("src", "poster"), "object": ("data",),
    "link": ("href",),
}  # fmt: skip
# Links of these kinds are for readers and machines that ask; browsers load all others.
_NOT_LOADED = {"alternate", "author", "canonical", "help", "license", "next", "prev", "search"}
_IN_STYLES = re.compile(r"""(?:url\(|@import\s+)\s*["']?([^"')\s;]+)""")


class _Loaded(HTMLParser):
    """Addresses of everything that a browser loads with a page."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self._in_style = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value for name, value in attrs if value}
        self._in_style = tag == "style"
        self.addresses += _IN_STYLES.findall(given.get("style", ""))
        if tag == "link" and _NOT_LOADED.intersection(given.get("rel", "").split()):
            return
        for name in _ATTRIBUTES.get(tag, ()):
            if name == "srcset":
                several = given.get(name, "").split(",")
                self.addresses += [part.split()[0] for part in several if part]
            elif name in given:
                self.addresses.append(given[name])

    def handle_data(self, data: str) -> None:
        if self._in_style:
            self.addresses += _IN_STYLES.findall(data)


def loaded(file: Path) -> list[str]:
    """The addresses of what a browser loads for a page or a sheet of styles."""
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".css":
        return _IN_STYLES.findall(text)
    page = _Loaded()
    page.feed(text)
    return page.addresses


def missing(site: Path) -> Iterator[str]:
    """A sentence for each thing that pages or styles load and that is not a file of the site."""
    for file in sorted([*site.rglob("*.html"), *site.rglob("*.css")]):
        for address in loaded(file):
            parts = urlsplit(address)
            if parts.scheme == "data" or not (parts.scheme or parts.netloc or parts.path):
                continue
            beside = site if parts.path.startswith("/") else file.parent
            within = beside / unquote(parts.path).lstrip("/")
            if parts.scheme or parts.netloc or not within.is_file():
                yield f"{file.relative_to(site)}: loads {address}, which is no file of the site"


def on_post_build(config: Any, **_: object) -> None:
    """Called by MkDocs when the site is written."""
    for sentence in missing(Path(config["site_dir"])):
        _LOG.warning(sentence)
