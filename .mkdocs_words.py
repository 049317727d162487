"""Where code in the text of pages may break: names at their joints, options nowhere."""

import re

_CELL = re.compile(r"<td[ >].*?</td>", re.DOTALL)
# Blocks begin with a span.
_CODE = re.compile(r"(?<!<span></span>)(<code>)(.*?)(</code>)", re.DOTALL)
# Inside of names: not before what they begin with, nor before the ending of a file.
_JOINT = re.compile(r"(?<=\w)([_(=/](?=\w|&quot;)|\.(?=\w{5}))")
_OPTION = re.compile(r"(?<![\w-])--?[a-z][\w-]*")


def _jointed(found: re.Match[str]) -> str:
    return found[1] + _JOINT.sub(r"\1<wbr>", found[2]) + found[3]


def _whole(found: re.Match[str]) -> str:
    return found[1] + _OPTION.sub(r'<span class="whole">\g<0></span>', found[2]) + found[3]


def on_page_content(content: str, **_: object) -> str:
    """Called by MkDocs with the HTML of each page."""
    content = _CELL.sub(lambda cell: _CODE.sub(_jointed, cell[0]), content)
    return _CODE.sub(_whole, content)
