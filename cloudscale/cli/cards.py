"""Cards to hand out, eight to a page, as one HTML document that needs no network and runs no scripts.

Everything here is pure. Names, the title and the note are anybody's text: they are escaped, and fit into their boxes.
"""

from __future__ import annotations

import base64
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from importlib import resources

import segno

from cloudscale.errors import RequestError
from cloudscale.terminal import visible
from cloudscale.units import MIB

ON_PAGE = 8  # cards.css: two by four
HELP = "Open the address or scan the code, then type the password. Keep this card to yourself."
LARGEST_LOGO = MIB  # bytes

POINT = 25.4 / 72  # mm
LINE = 1.2  # height of a line, in ems
BLANK = 0.35  # width of a blank, in ems
MONO = 0.62  # width of any character of a monospaced font, in ems: the widest of those in cards.css, rounded up
READABLE = 9.0  # points; a longer word is broken rather than made smaller
SMALLEST = 2.0  # points; what does not fit then is cut off
STEP = 0.25  # points

SECURITY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


@dataclass(frozen=True)
class Card:
    """What one student needs to log in. `address` is a URL."""

    name: str
    address: str
    password: str = field(repr=False)


@dataclass(frozen=True)
class Design:
    """What all cards of a class share. `logo`: a `data:` URI, or empty for none."""

    title: str
    note: str = HELP
    logo: str = ""


@dataclass(frozen=True)
class Box:
    """Room for a text, in mm, and the largest size of its letters, in points."""

    width: float
    height: float
    largest: float

    def size(self, text: str) -> float:
        """The size in points at which a text fits: an estimate, since the fonts are those of the reader's browser."""
        words = [_ems(word) for word in text.split()]
        size = self.largest
        while size > SMALLEST and not self._holds(words, size):
            size -= STEP
        return size

    def _holds(self, words: Sequence[float], size: float) -> bool:
        """Whether words of these widths, in ems, fit at a size."""
        room = self.width / (size * POINT)
        if size > READABLE and max(words, default=0.0) > room:
            return False
        lines, used = 1, 0.0
        for word in words:
            used += word + (BLANK if used else 0)
            if used > room and used > word:
                lines, used = lines + 1, word
            broken = int(used / room)
            lines, used = lines + broken, used - broken * room
        return lines * LINE * size * POINT <= self.height


TITLE, TITLE_BY_LOGO = Box(82, 7, 10), Box(55, 7, 10)
NAME = Box(51, 18, 16)
NOTE = Box(82, 7, 7.5)
PASSWORD_WIDTH, PASSWORD_SIZE = 51, 15
CODE_WIDTH = 29.5  # mm
QUIET = 4  # modules (ISO/IEC 18004)
ADDRESS_WIDTH, ADDRESS_SIZE, ADDRESS_LINE = 82, 10, 7.5  # a smaller line than that is broken instead


def page_count(cards: int) -> int:
    return -(-cards // ON_PAGE)


def document(cards: Sequence[Card], design: Design) -> str:
    """The cards as an HTML document."""
    count, pages = len(cards), page_count(len(cards))
    size = f"{count} cards on {pages} pages" if pages > 1 else f"{count} cards"
    hint = f"{size}, with passwords. Print at 100 %, on A4 or Letter, and cut along the dashed lines."
    sheets = "\n".join(
        f'<section class="sheet">\n{"".join(_card(card, design) for card in sheet)}</section>'
        for sheet in (cards[at : at + ON_PAGE] for at in range(0, count, ON_PAGE))
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{SECURITY}">
<meta name="referrer" content="no-referrer">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{_text(design.title)}</title>
<style>
{_style(design)}</style>
</head>
<body>
{f'<p class="hint">{hint}</p>' if count > 1 else ""}
<main>
{sheets}
</main>
</body>
</html>
"""


def _style(design: Design) -> str:
    """The style sheet, with the logo: once for all cards, and as an image, so that no script in it runs."""
    style = resources.files("cloudscale.cli").joinpath("cards.css").read_text(encoding="utf-8")
    return f'{style}.logo {{ background-image: url("{design.logo}"); }}\n' if design.logo else style


def _card(card: Card, design: Design) -> str:
    logo = '<div class="logo"></div>' if design.logo else ""
    password = f'<dd style="font-size:{_mono_size(card.password):.2f}pt">{_text(card.password)}</dd>'
    return f"""<article class="card">
<header>{_fitted("p", "title", design.title, TITLE_BY_LOGO if logo else TITLE)}{logo}</header>
{_fitted("h2", "name", card.name, NAME)}
{_code(card.address)}
<dl>
<div class="password"><dt>Password</dt>{password}</div>
<div class="address"><dt>Address</dt>{_address(card.address)}</div>
</dl>
{_fitted("p", "note", design.note, NOTE)}
</article>
"""


def _text(text: str) -> str:
    return escape(visible(text))


def _fitted(tag: str, name: str, text: str, box: Box) -> str:
    """A text in a box, in letters that are as large as they can be, in its own direction."""
    text = visible(text)
    return f'<{tag} class="{name}" dir="auto" style="font-size:{box.size(text):.2f}pt">{escape(text)}</{tag}>'


def _ems(text: str) -> float:
    """About how wide a text is, in ems, in any script and in a wide, bold font."""
    return sum(map(_em, text))


def _em(character: str) -> float:
    if unicodedata.combining(character):
        return 0.0
    if character in "MWmw" or unicodedata.east_asian_width(character) in "WF":
        return 1.05
    return 0.85 if character.isupper() else 0.66


def _mono_size(password: str) -> float:
    """It stands on one line, whatever its length."""
    return min(PASSWORD_SIZE, PASSWORD_WIDTH / (MONO * len(password)) / POINT)


def _address(url: str) -> str:
    """The address, to be typed: on one line if that can be read, else broken only after slashes."""
    parts = [part for part in re.findall(r"(?:[^/]*//)?[^/]*/?", visible(url)) if part]

    def size(text: str) -> float:
        return min(ADDRESS_SIZE, ADDRESS_WIDTH / (MONO * len(text)) / POINT)

    points = whole if (whole := size(url)) >= ADDRESS_LINE else min(ADDRESS_LINE, size(max(parts, key=len)))
    broken = "<wbr>".join(f"<span>{escape(part)}</span>" for part in parts)
    return f'<dd style="font-size:{points:.2f}pt"><a href="{escape(url)}">{broken}</a></dd>'


def _code(url: str) -> str:
    """The QR code of an address. The quiet zone around it, which readers need, reaches into the card's margin."""
    code = segno.make_qr(url, error="m")
    zone = CODE_WIDTH * QUIET / code.symbol_size(border=QUIET)[0]
    picture = code.svg_inline(border=QUIET, omitsize=True, svgclass=None, lineclass=None)
    return f'<div class="code" style="margin-right:-{zone:.2f}mm">{picture}</div>'


def logo_uri(data: bytes, source: str) -> str:
    """A picture as a `data:` URI. `source` names it in messages. Raises RequestError for what is none, or too large."""
    if len(data) > LARGEST_LOGO:
        raise RequestError(f"--logo: {source} is larger than {LARGEST_LOGO // MIB} MiB.", "Make the picture smaller.")
    if not (kind := _picture(data)):
        raise RequestError(f"--logo: {source} is no picture of a known kind.", "Give a PNG, JPEG, WebP or SVG file.")
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def _picture(data: bytes) -> str:
    """What kind of picture this is by its content; empty: of no known kind."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if data.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    # an XML document whose first element is svg, after its declaration, comments and document type
    prolog = rb"(?:\xef\xbb\xbf)?(?:\s|<\?[^>]*\?>|<!--.*?-->|<!DOCTYPE[^>\[]*(?:\[[^\]]*\])?\s*>)*"
    return "svg+xml" if re.match(prolog + rb"<(?:\w+:)?svg[\s>]", data, re.DOTALL) else ""
