"""The cards as HTML. How they look was tried by hand, in Chromium and Firefox, on A4 and Letter."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
import segno
from hypothesis import given
from hypothesis import strategies as st

from cloudscale.cli import cards
from cloudscale.cli.cards import HELP, LARGEST_LOGO, NAME, Card, Design, document, logo_uri
from cloudscale.errors import RequestError

ANN = Card("Ann Lee", "http://192.0.2.1:4321/kw4h7txecd", "kw4h-7txe-cdrp")
BIO = Design("Biology")
PNG = b"\x89PNG\r\n\x1a\n\x00"
HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'</style></title>&amp;"


class Read(HTMLParser):
    """What a browser finds in a document: its elements, and the texts by the class of what they stand in."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self._open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.elements.append((tag, given))
        if tag not in ("meta", "wbr", "path"):
            self._open.append(given.get("class") or "")
            if name := given.get("class"):
                self.texts.setdefault(name, []).append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        self._open.pop()

    def handle_data(self, data: str) -> None:
        for name in filter(None, self._open):
            self.texts[name][-1] += data

    def count(self, tag: str) -> int:
        return sum(found == tag for found, _ in self.elements)


def test_a_card_has_all_that_a_student_needs() -> None:
    read = Read(document([ANN], BIO))
    assert read.texts["title"] == ["Biology"]
    assert read.texts["name"] == ["Ann Lee"]
    assert read.texts["password"] == ["Passwordkw4h-7txe-cdrp"]
    assert read.texts["address"] == ["Addresshttp://192.0.2.1:4321/kw4h7txecd"]
    assert read.texts["note"] == [HELP]
    assert [given["href"] for tag, given in read.elements if tag == "a"] == [ANN.address]


def test_the_code_is_that_of_the_address() -> None:
    other = Card("Bob", "https://class.example.org/", "x")
    text = document([ANN, other], BIO)
    drawn = re.findall(r'<path [^>]*d="([^"]+)"', text)
    assert drawn == [_path(ANN.address), _path(other.address)]
    assert len(set(drawn)) == 2


def _path(url: str) -> str:
    (found,) = re.findall(r' d="([^"]+)"', segno.make(url, error="m", micro=False).svg_inline(border=4))
    return str(found)


@pytest.mark.parametrize(("count", "sheets"), [(1, 1), (8, 1), (9, 2), (17, 3)])
def test_eight_cards_are_on_a_page(count: int, sheets: int) -> None:
    read = Read(document([ANN] * count, BIO))
    assert (read.count("article"), read.count("section"), cards.page_count(count)) == (count, sheets, sheets)
    assert ("hint" in read.texts) == (count > 1)


def test_whatever_people_are_called_is_text() -> None:
    plain, hostile = (
        Read(document([ANN], BIO)),
        Read(document([Card(HOSTILE, ANN.address, "x")], Design(HOSTILE, HOSTILE))),
    )
    assert [tag for tag, _ in hostile.elements] == [tag for tag, _ in plain.elements]
    assert [list(given) for _, given in hostile.elements] == [list(given) for _, given in plain.elements]
    assert hostile.texts["name"] == hostile.texts["title"] == hostile.texts["note"] == [HOSTILE]


@given(st.text(), st.text())
def test_any_name_is_on_its_card_and_changes_nothing_else(name: str, note: str) -> None:
    read = Read(document([Card(name, ANN.address, "x")], Design("Biology", note)))
    assert read.count("article") == read.count("h2") == 1
    assert read.texts["password"] == ["Passwordx"]


def test_control_characters_are_visible_and_names_have_their_own_direction() -> None:
    read = Read(document([Card("a\u202eb\x1bc\ud800", ANN.address, "x"), Card("שרה", ANN.address, "x")], BIO))
    assert read.texts["name"] == ["a\\u202eb\\x1bc\\ud800", "שרה"]
    assert [given["dir"] for tag, given in read.elements if tag == "h2"] == ["auto", "auto"]


def test_a_document_needs_nothing_but_itself() -> None:
    text = document([ANN], Design("Biology", logo=logo_uri(PNG, "logo.png")))
    read = Read(text)
    (policy,) = [given["content"] for _, given in read.elements if given.get("http-equiv") == "Content-Security-Policy"]
    assert policy and policy.startswith("default-src 'none'; img-src data:;")
    assert read.count("script") == read.count("link") == read.count("img") == 0
    assert not re.search(r"@import|@font-face", text)
    assert set(re.findall(r"url\(.{0,10}", text)) == {'url("data:imag'}


def test_a_page_has_room_for_eight_cards_on_a4_and_letter() -> None:
    style = document([ANN], BIO)
    assert "@page { margin: 11mm 8mm 9mm; }" in style
    width, height = (int(size) for size in re.findall(r"repeat\(2, (\d+)mm\); grid-auto-rows: (\d+)mm", style)[0])
    assert 2 * width <= 210 - 16
    assert 4 * height <= 279.4 - 20


# --- what fits where -------------------------------------------------------------------------


def test_short_names_are_large_and_long_ones_small() -> None:
    sizes = [NAME.size("x " * count) for count in (1, 50, 100, 500)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] == NAME.largest


@pytest.mark.parametrize("name", ["Ma Ri " * 33, "王小明" * 67, "W" * 200, "é" * 200, "محمد " * 40])
def test_a_name_of_200_characters_can_be_read(name: str) -> None:
    assert NAME.size(name) >= 4.5


def test_a_long_word_is_made_smaller_before_it_is_broken() -> None:
    assert NAME.size("Wolfeschlegelsteinh") < NAME.largest
    assert NAME.size("Wolfeschlegelsteinhausenbergerdorff" * 2) == cards.READABLE


def test_a_text_without_any_letter_is_no_error() -> None:
    assert NAME.size("") == NAME.size(" ") == NAME.largest


def test_an_accent_of_its_own_takes_no_room() -> None:
    assert NAME.size("e\u0301" * 40) == NAME.size("e" * 40)


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        (ANN.address, ["http://192.0.2.1:4321/", "kw4h7txecd"]),
        ("https://class.example.org/", ["https://class.example.org/"]),
        ("http://[2001:db8::1]:4321/a/b-c", ["http://[2001:db8::1]:4321/", "a/", "b-c"]),
    ],
)
def test_an_address_is_broken_only_after_slashes(url: str, parts: list[str]) -> None:
    (address,) = re.findall(r'<dd[^>]*><a href="[^"]*">(.*)</a></dd>', document([Card("Ann", url, "x")], BIO))
    assert [part.removeprefix("<span>").removesuffix("</span>") for part in address.split("<wbr>")] == parts


@pytest.mark.parametrize(
    "url", [ANN.address, f"https://{'a' * 60}.example.org/", f"http://{'b' * 40}.org:4321/{'c' * 10}"]
)
def test_the_longest_part_of_an_address_fits_on_a_line(url: str) -> None:
    ((size, parts),) = re.findall(r'size:([0-9.]+)pt"><a [^>]*>(.*)</a>', document([Card("Ann", url, "x")], BIO))
    longest = max(len(re.sub("<[^>]*>", "", part)) for part in parts.split("<wbr>"))
    assert longest * cards.MONO * float(size) * cards.POINT <= cards.ADDRESS_WIDTH + 0.5


def test_a_long_password_stays_on_one_line() -> None:
    sizes = [cards._mono_size("x" * length) for length in (14, 30, 60)]
    assert sizes[0] == cards.PASSWORD_SIZE
    assert all(size * cards.MONO * n * cards.POINT <= 51.1 for size, n in zip(sizes, (14, 30, 60), strict=True))


def test_a_password_is_in_no_log() -> None:
    assert ANN.password not in repr(ANN)


# --- the logo --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (PNG, "png"),
        (b"\xff\xd8\xff\xe0", "jpeg"),
        (b"RIFF\x24\x00\x00\x00WEBPVP8 ", "webp"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "svg+xml"),
        (b"\xef\xbb\xbf<?xml version='1.0'?>\n<!-- <html> -->\n<!DOCTYPE svg PUBLIC 'a' 'b'>\n<svg>", "svg+xml"),
        (b"<!DOCTYPE svg [ <!ENTITY ns 'x'> ]><svg:svg xmlns:svg='x'>", "svg+xml"),
    ],
)
def test_a_logo_is_what_its_content_says(data: bytes, kind: str) -> None:
    assert logo_uri(data, "logo").startswith(f"data:image/{kind};base64,")


@pytest.mark.parametrize("data", [b"", b"GIF89a", b"<html><svg>", b"%PDF-1.7", b"<svgx>", b"a <svg>"])
def test_what_is_no_picture_is_refused(data: bytes) -> None:
    with pytest.raises(RequestError, match="no picture of a known kind"):
        logo_uri(data, "logo.txt")


def test_a_large_logo_is_refused() -> None:
    assert logo_uri(PNG.ljust(LARGEST_LOGO), "logo.png")
    with pytest.raises(RequestError, match="larger than 1 MiB"):
        logo_uri(PNG.ljust(LARGEST_LOGO + 1), "logo.png")


def test_a_logo_is_in_the_document_once() -> None:
    uri = logo_uri(PNG, "logo.png")
    text = document([ANN] * 9, Design("Biology", logo=uri))
    assert text.count(uri) == 1
    assert text.count('<div class="logo">') == 9
    assert 'class="logo"' not in document([ANN], BIO)
