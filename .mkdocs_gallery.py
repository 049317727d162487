"""Pages of the examples, made from the scripts; and the gallery of their pictures."""

import re
from html import escape
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

_PICTURES = "images/gallery"
# A line of the table in examples.md: name, question.
_LISTED = re.compile(
    r"^\| \[`(\w+)\.py`\]\(examples/\1\.md\) \| (.*?)(?: \(\[text\]\(.*\)\))? \|$", re.MULTILINE
)
_CELL = re.compile(r"^# %%( \[markdown\])?\n", re.MULTILINE)


def as_page(script: str, name: str, picture: bool) -> str:
    """A script in percent format as Markdown, its picture under the title."""
    parts = _CELL.split(script)[1:]
    made = []
    for kind, text in zip(parts[::2], parts[1::2], strict=True):
        if kind:
            made.append(re.sub(r"^# ?", "", text.strip(), flags=re.MULTILINE))
        else:
            made.append(f"```python\n{text.strip()}\n```")
    title, _, rest = made[0].partition("\n")
    shown = f"![{title.lstrip('# ')}](../{_PICTURES}/{name}.png)\n\n" if picture else ""
    source = f"The script: [`examples/{name}.py`]({name}.py)."
    return "\n\n".join([title, rest.strip(), shown + source, *made[1:]])


def on_files(files: Files, config: MkDocsConfig, **_: object) -> None:
    """Called by MkDocs with the files of the site: a page and the script for each example."""
    unlisted = InclusionLevel.NOT_IN_NAV
    for script in sorted((Path(config.docs_dir).parent / "examples").glob("*.py")):
        name, text = script.stem, script.read_text(encoding="utf-8")
        picture = files.get_file_from_path(f"{_PICTURES}/{name}.png") is not None
        made = as_page(text, name, picture)
        files.append(File.generated(config, f"examples/{name}.py", content=text))
        files.append(
            File.generated(config, f"examples/{name}.md", content=made, inclusion=unlisted)
        )


def on_page_markdown(markdown: str, page: Page, files: Files, **_: object) -> str:
    """Called by MkDocs with the text of each page: pictures above the table of the examples."""
    if page.file.src_uri != "examples.md":
        return markdown
    cards = [
        f'<a href="examples/{name}.html"><img src="{_PICTURES}/{name}.png" alt="" loading="lazy">'
        f"<span>{escape(question)}</span></a>"
        for name, question in _LISTED.findall(markdown)
        if files.get_file_from_path(f"{_PICTURES}/{name}.png")
    ]
    return markdown.replace("<!-- pictures -->", f'<div class="gallery">{"".join(cards)}</div>')
