"""Documents become passages: whatever they are written in, whole, in order, and named."""

from __future__ import annotations

import builtins
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfinstruct.core.errors import DocumentError, MissingDependency
from selfinstruct.core.types import Passage
from selfinstruct.steps.documents.blocks import Block, tidy
from selfinstruct.steps.documents.cutting import cut
from selfinstruct.steps.documents.pdf import _lines as pdf_lines
from selfinstruct.steps.documents.plain import markdown_blocks, text_blocks
from selfinstruct.steps.documents.shelf import Shelf, read_documents, together
from selfinstruct.steps.documents.web import html_blocks
from selfinstruct.steps.documents.word import docx_blocks
from selfinstruct.steps.words import count_words

DENTAL = """\
# Dental cover

## Waiting period

Dental cover begins after a waiting period of 8 months. Accidents are covered from the first day.

## What is paid

We pay 80% of the costs of fillings and 60% of the costs of crowns, up to 1,500 euros a year.
"""


def pdf(pages: list[list[str]], encrypted: bool = False) -> bytes:
    """A PDF with these lines on its pages, in Helvetica; locked by an unknown password, or not."""
    kids = " ".join(f"{4 + 2 * n} 0 R" for n in range(len(pages)))
    objects = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    for n, lines in enumerate(pages):
        drawn = " ".join(f"({line}) Tj T*" for line in lines)
        stream = f"BT /F 12 Tf 14 TL 50 800 Td {drawn} ET"
        objects.append(
            "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] "
            f"/Resources << /Font << /F 3 0 R >> >> /Contents {5 + 2 * n} 0 R >>"
        )
        objects.append(f"<< /Length {len(stream)} >>\nstream\n{stream}\nendstream")
    lock = ""
    if encrypted:
        objects.append(f"<< /Filter /Standard /V 1 /R 2 /P -4 /O <{'aa' * 32}> /U <{'bb' * 32}> >>")
        lock = f"/Encrypt {len(objects)} 0 R /ID [<00> <00>] "
    body, places = "%PDF-1.4\n", []
    for number, one in enumerate(objects, 1):
        places.append(len(body))
        body += f"{number} 0 obj\n{one}\nendobj\n"
    table = "".join(f"{place:010d} 00000 n \n" for place in places)
    count = len(objects) + 1
    return (
        f"{body}xref\n0 {count}\n0000000000 65535 f \n{table}"
        f"trailer\n<< /Size {count} /Root 1 0 R {lock}>>\nstartxref\n{len(body)}\n%%EOF\n"
    ).encode("ascii")


def word(path: Path) -> None:
    """A Word document with headings, a paragraph and a table."""
    import docx

    document = docx.Document()
    document.add_heading("Travel cover", 1)
    document.add_paragraph("Cover holds for the first 42 days of a journey.")
    table = document.add_table(rows=2, cols=2)
    for row, cells in zip(table.rows, (("Thing", "Limit"), ("Camera", "800 euros")), strict=True):
        row.cells[0].text, row.cells[1].text = cells
    document.save(str(path))


def read(path: Path, words: int = 250, **options: Any) -> Shelf:
    return read_documents(path, words=words, **options)


def texts(passages: list[Passage]) -> list[str]:
    return [passage.text for passage in passages]


# -- what documents are written in ---------------------------------------------------------------


def test_markdown_has_headings_and_paragraphs() -> None:
    """Of both kinds, with their lines; not in code, and not the front matter."""
    text = (
        "---\ntitle: x\n---\nTop\n===\n\nOne\ntwo\n\n"
        "```\n# no heading\n\nstill code\n```\n## Sub ##\nend"
    )
    assert list(markdown_blocks(text)) == [
        Block("Top", 1, 5),
        Block("One\ntwo", 0, 7),
        Block("```\n# no heading\nstill code\n```", 0, 10),
        Block("Sub", 2, 15),
        Block("end", 0, 16),
    ]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("---\nText\n\n---\nend", ["---\nText", "---\nend"]),  # rules, no front matter
        ("```a``` b\n\n# C", ["```a``` b", "1:C"]),
        ("````\n```\n# no\n```\n````\n---\n# A", ["````\n```\n# no\n```\n````\n---", "1:A"]),
        ("~~~\n~~~ no\n# no\n~~~\n# A", ["~~~\n~~~ no\n# no\n~~~", "1:A"]),
        ("# C#\n\n# D ##\n\n# E # F\n\n# #", ["1:C#", "1:D", "1:E # F"]),
        (f"# a{' ' * 50_000}b", ["1:a b"]),  # in no time
        ("On two\nlines\n===\nend", ["1:On two lines", "end"]),
        ("- item\n---\n\n> quote\n---", ["- item\n---", "> quote\n---"]),
        ("a\nb\nc\nd\n---", ["a\nb\nc\nd\n---"]),
        ("![x](data:image/png;base64,iVBORw0K/+=) x", ["![x](data:image/png;base64,) x"]),
    ],
)
def test_what_only_looks_like_markdown(text: str, found: list[str]) -> None:
    """Rules, code within code, items above a line; nothing is taken for a heading, or for none."""
    blocks = markdown_blocks(text)
    assert [f"{b.level}:{b.text}" if b.level else b.text for b in blocks] == found


def test_plain_text_has_no_code() -> None:
    """A line of tildes underlines the one above it."""
    found = [block.text for block in text_blocks("Title\n~~~~~\n\nOne\n\nTwo")]
    assert found == ["Title\n~~~~~", "One", "Two"]


def test_plain_text_has_paragraphs_only() -> None:
    """A line that begins with a hash is text."""
    found = list(text_blocks("# one\r\nmore \r\n\r\n\r\n two\tthree "))
    assert found == [Block("# one\nmore", 0, 1), Block("two three", 0, 5)]


def test_html_is_what_a_reader_sees() -> None:
    """Headings, list items, rows of tables; no scripts, comments or navigation."""
    page = (
        "<html><head><title>t</title><style>p{}</style></head><body><nav>Home</nav>"
        "<h1>Travel <i>cover</i></h1><!-- hidden --><p>It holds for\n the first <b>42</b> days<br>"
        "of a journey.</p><table><tr><th>Thing</th><th>Limit</th></tr><tr><td>Camera</td>"
        "<td>800&nbsp;euros</td></tr></table><ul><li>One<ul><li>Within</li></ul></li></ul>"
        "<pre>a\nb</pre><script>x()</script>Tail</body></html>"
    )
    found = [(block.level, block.text) for block in html_blocks(page.encode())]
    assert found == [
        (1, "Travel cover"),
        (0, "It holds for the first 42 days\nof a journey."),
        (0, "Thing | Limit"),
        (0, "Camera | 800 euros"),
        (0, "One"),
        (0, "Within"),
        (0, "a\nb"),
        (0, "Tail"),
    ]


def page(body: str) -> list[str]:
    return [block.text for block in html_blocks(f"<html><body>{body}</body></html>".encode())]


def test_html_that_looks_the_same_is_there_twice() -> None:
    """Two items or rows alike are two."""
    row = "<tr><td>1</td><td>2</td></tr>"
    found = page(f"<ul><li>yes</li><li>yes</li></ul><table>{row}{row}</table><p>a</p><p>a</p>")
    assert found == ["yes", "yes", "1 | 2", "1 | 2", "a", "a"]


def test_a_row_of_a_table_is_a_line_however_its_cells_are_written() -> None:
    """With paragraphs, lists or nothing in them; rows that lay out the page are not."""
    rows = (
        "<tr><td><p>Camera</p></td><td></td><td><p>800</p><p>euros<br>a year</p></td></tr>"
        "<tr><td colspan=3>All</td></tr><tr><td>Ring<td><ul><li>a</li><li>b</li></ul><tr><td>C<td>D"
    )
    assert page(f"<table>{rows}</table>") == [
        "Camera | | 800 euros a year", "All", "Ring | a b", "C | D",
    ]  # fmt: skip
    inner = "<table><tr><td>x</td><td>y</td></tr></table>"
    layout = f"<table><tr><td>menu</td><td><h1>Top</h1>{inner}<p>One</p>Tail</td></tr></table>"
    assert page(layout) == ["menu", "Top", "x | y", "One", "Tail"]


def test_a_cell_over_several_rows_is_in_each_of_them() -> None:
    """As in Word; otherwise the second row does not say what it is of."""
    rows = "<tr><td rowspan=2>Ring<td>a<td rowspan=9>x<tr><td>b<tr><td colspan=2>All"
    assert page(f"<table>{rows}</table><table><tr><td>C<td>D</table>") == [
        "Ring | a | x", "Ring | b | x", "All | x", "C | D",
    ]  # fmt: skip


@pytest.mark.filterwarnings("error")
def test_html_of_all_sorts(tmp_path: Path) -> None:
    """A declaration that is none, marks behind headings, a lone address; but not binary data."""
    assert page("<h1>Top<a href=x>\u00b6</a></h1>a<![if x]>b<![foo bar]>") == [
        "Top", "a<![if x]>b<![foo bar]>",
    ]  # fmt: skip
    assert [block.text for block in html_blocks(b"http://example.com/x.html")] == [
        "http://example.com/x.html"
    ]
    (tmp_path / "x.html").write_bytes(bytes(range(256)))
    with pytest.raises(DocumentError, match=r"x.html: not text in the encoding that it names"):
        read(tmp_path)


def test_html_keeps_words_and_figures_apart() -> None:
    """Around what breaks a line, and at notes, which would be digits of the figure before."""
    assert page("one<hr>two<center>three</center>four<fieldset>five</fieldset>") == [
        "one\ntwo", "three", "four", "five",
    ]  # fmt: skip
    cost = "<p>500<sup>1</sup> or 600<sup><a href=x>2</a></sup> euros, the 1<sup>st</sup></p>"
    assert page(cost) == ["500^1 or 600 [2] euros, the 1st"]


def test_html_has_its_text_wherever_it_stands() -> None:
    """In a form around the whole page, and in notes of the text; other forms are left out."""
    form = "<form><input><button>Go</button><p>{}</p></form>"
    assert page(form.format("All of the page is here.")) == ["All of the page is here."]
    assert page(f"<p>{'The text of the page. ' * 4}</p>" + form.format("Search")) == [
        " ".join(["The text of the page."] * 4)
    ]
    aside = "<aside>More of us</aside><main><p>Text</p><aside>Note</aside></main>"
    assert page(aside + '<aside role="doc-endnotes">End</aside>') == ["Text", "Note", "End"]
    assert page("<aside>More<aside>of us</aside></aside><p>Text</p>") == ["Text"]


def test_tags_that_are_never_closed_take_no_time() -> None:
    """Each is then within all before it; looking up from each would take minutes."""
    found = page("".join(f"<p>One {n}" for n in range(3000)) + "<table>" + "<tr><td>a<td>b" * 3000)
    assert len(found) == 6000
    assert found[-1] == "a | b"


def test_html_is_read_in_its_own_encoding() -> None:
    """As its meta tag names it."""
    page = '<meta charset="latin-1"><p>Bäume</p>'.encode("latin-1")
    assert [block.text for block in html_blocks(page)] == ["Bäume"]


def test_pdf_lines_are_joined_to_paragraphs(tmp_path: Path) -> None:
    """Words divided at a line's end too; running heads and page numbers are left out."""
    pages = [
        ["Terms of 2026", f"Cover number {n} begins on the first day of the month after the con-",
         "tract was signed by both of the parties.", "Invoices are sent by mail to the office.",
         f"Page {n}"]
        for n in range(1, 5)
    ]  # fmt: skip
    (tmp_path / "terms.pdf").write_bytes(pdf(pages))
    found = read(tmp_path / "terms.pdf", words=30).passages
    assert len(found) == 4
    assert found[1].text.startswith(
        "Cover number 2 begins on the first day of the month after the "
    )
    assert "contract was signed by both of the parties." in found[1].text
    assert not any("Terms of" in text or "Page" in text for text in texts(found))
    assert found[2].source.endswith("terms.pdf:3")


def test_pages_that_are_pictures_are_counted(tmp_path: Path) -> None:
    """A contract may have scanned pages among others; an empty page is nothing."""
    import pypdfium2

    document = pypdfium2.PdfDocument(pdf([["All that the terms say, on one page."], [], []]))
    picture = pypdfium2.PdfImage.new(document)
    picture.set_bitmap(pypdfium2.PdfBitmap.new_native(2, 2, pypdfium2.raw.FPDFBitmap_BGR))
    page = document[1]
    page.insert_obj(picture)
    page.gen_content()
    document.save(tmp_path / "x.pdf")
    assert read(tmp_path).in_short() == (
        "1 passage of 1 document; left out 1 page without a text layer (x.pdf:2)"
    )


def test_pdf_heads_are_told_from_rows_of_figures(tmp_path: Path) -> None:
    """Several lines, other ones on left and right pages; figures that end each page are text."""
    pages = [["Cover of the terms", "by the insurer", "of that name"]]
    for n in range(2, 10):
        body = [f"{word} is insured on page {n} as well" for word in ("Fire", "Water", "Hail")]
        left = "Household" if n % 2 else "Terms of 2026"
        pages.append([left, f"Part of {n + 1}", *body * 4, f"{17 * n} {100 - n}", f"- {n} -"])
    (tmp_path / "terms.pdf").write_bytes(pdf(pages))
    (found,) = read(tmp_path / "terms.pdf", words=2000).passages
    assert "by the insurer" in found.text
    assert not any(one in found.text for one in ("Household", "Part of", "- 3 -", "of 2026"))
    assert all(f"{17 * n} {100 - n}" in found.text for n in range(2, 10))


def test_pdf_lines_that_end_early_stay_lines(tmp_path: Path) -> None:
    """Such as headings and rows; words are joined in any script, names and ranges are not."""
    text = "The insurer pays for all that the terms of this policy have named, in full and in time,"
    lines = [
        "3 Limits",
        text,
        f"{text} well-",
        "being.",
        "It ends.",
        "Camera 800",
        "Ring 90",
    ]
    (tmp_path / "x.pdf").write_bytes(pdf([lines]))
    (found,) = read(tmp_path / "x.pdf").passages
    assert found.text == f"3 Limits\n{text} {text} wellbeing. It ends.\n\nCamera 800\nRing 90"
    cyrillic = "\u0441\u0442\u0440\u0430"
    assert pdf_lines(f"\u00e9t\u00e9-\r\n{cyrillic}-\r\n{cyrillic} Anglo-\nSaxon 1-\n2 \ufb01") == [
        f"\u00e9t\u00e9{cyrillic}{cyrillic} Anglo-",
        "Saxon 1-",
        "2 fi",
    ]


def test_word_documents_have_headings_and_tables(tmp_path: Path) -> None:
    """A row is a line."""
    word(tmp_path / "travel.docx")
    (found,) = read(tmp_path / "travel.docx").passages
    assert found.title == "Travel cover"
    assert found.text.split("\n\n") == [
        "Cover holds for the first 42 days of a journey.",
        "Thing | Limit",
        "Camera | 800 euros",
    ]


WORD = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
MARKUP = 'xmlns:mc="http://schemas.openxmlformats.org/markup-compatibility/2006"'


def run(text: str) -> str:
    return f'<w:r><w:t xml:space="preserve">{text}</w:t></w:r>'


def paragraph(content: str, settings: str = "") -> str:
    return f"<w:p><w:pPr>{settings}</w:pPr>{content}</w:p>"


def word_texts(path: Path, *elements: str) -> list[str]:
    """What is read of a Word document with these elements, headings with their level."""
    import docx
    from docx.opc.constants import RELATIONSHIP_TYPE
    from docx.opc.packuri import PackURI
    from docx.opc.part import Part
    from docx.oxml import parse_xml

    document = docx.Document()
    for style, base in (("Kapitel", "Heading 2"), ("toc 1", "Normal")):
        made = document.styles.add_style(style, 1)
        made.base_style = document.styles[base]
    notes = f'<w:footnotes {WORD}><w:footnote w:id="2">{paragraph(run("Note"))}</w:footnote>'
    part = Part(
        PackURI("/word/footnotes.xml"),
        "application/vnd.openxmlformats-officedocument.wordprocessingml.footnotes+xml",
        f"{notes}</w:footnotes>".encode(),
        document.part.package,
    )
    document.part.relate_to(part, RELATIONSHIP_TYPE.FOOTNOTES)
    for element in parse_xml(f"<w:body {WORD} {MARKUP}>{''.join(elements)}</w:body>"):
        document.element.body.insert_element_before(element, "w:sectPr")
    document.save(str(path / "x.docx"))
    return [f"{b.level}:{b.text}" if b.level else b.text for b in docx_blocks(path / "x.docx")]


def test_word_documents_are_read_as_they_stand(tmp_path: Path) -> None:
    """With accepted changes, content controls, fields, boxes and notes; no table of contents."""
    box = f"<w:txbxContent>{paragraph(run('In a box'))}</w:txbxContent>"
    assert word_texts(
        tmp_path,
        paragraph(
            f"{run('The fee is ')}<w:ins>{run('20')}</w:ins><w:del><w:r><w:delText>10</w:delText>"
            f"</w:r></w:del><w:fldSimple>{run(' euros')}</w:fldSimple><w:sdt><w:sdtContent>"
            f"{run(' a month.')}</w:sdtContent></w:sdt>"
        ),
        f"<w:sdt><w:sdtContent>{paragraph(run('Controlled'))}</w:sdtContent></w:sdt>",
        paragraph(
            f"{run('Before')}<mc:AlternateContent><mc:Choice>{box}</mc:Choice>"
            f"<mc:Fallback>{box}</mc:Fallback></mc:AlternateContent>"
        ),
        paragraph(run("Fees") + '<w:r><w:footnoteReference w:id="2"/></w:r>' + run(" rise")),
        paragraph(run("Chapter"), '<w:pStyle w:val="Kapitel"/>'),
        paragraph(run("Outlined"), '<w:outlineLvl w:val="2"/>'),
        paragraph(run("1 Chapter ... 3"), '<w:pStyle w:val="toc1"/>'),
    ) == [
        "The fee is 20 euros a month.",
        "Controlled",
        "Before",
        "In a box",
        "Fees [Note] rise",
        "2:Chapter",
        "3:Outlined",
    ]


def cell(content: str, settings: str = "") -> str:
    return f"<w:tc><w:tcPr>{settings}</w:tcPr>{content}</w:tc>"


def test_rows_of_word_tables_keep_their_cells(tmp_path: Path) -> None:
    """Alike, empty, merged or with a table within; one that frames text is none."""
    inner = f"<w:tbl><w:tr>{cell(paragraph(run('n1')))}{cell(paragraph(run('n2')))}</w:tr></w:tbl>"
    tall = '<w:vMerge w:val="restart"/>'
    rows = [
        cell(paragraph(run("5"))) + cell(paragraph("")) + cell(paragraph(run("5"))),
        cell(paragraph(run("tall")), tall) + cell(inner, '<w:gridSpan w:val="2"/>'),
        cell(paragraph(""), "<w:vMerge/>") + cell(paragraph(run("a")) + paragraph(run("b"))),
        cell(paragraph(run("one")) + paragraph(run("two"))),
    ]
    table = "".join(f"<w:tr>{row}</w:tr>" for row in rows)
    assert word_texts(tmp_path, f"<w:tbl>{table}</w:tbl>") == [
        "5 | | 5", "tall | n1 | n2", "tall | a b", "one", "two",
    ]  # fmt: skip


def test_a_word_document_that_unpacks_without_end_is_refused(tmp_path: Path) -> None:
    """Before it is unpacked."""
    word(tmp_path / "x.docx")
    with zipfile.ZipFile(tmp_path / "x.docx", "a", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("word/more.xml", b" " * (101 << 20))
    with pytest.raises(DocumentError, match="unpacks to more than 100 MiB of text; split it"):
        read(tmp_path / "x.docx")


# -- cutting -------------------------------------------------------------------------------------


def test_sections_are_cut_apart_and_titled() -> None:
    """By the headings that they stand under."""
    found = list(cut(markdown_blocks(DENTAL), 20))
    assert [piece.title for piece in found] == [
        "Dental cover > Waiting period",
        "Dental cover > What is paid",
    ]


def test_small_sections_are_put_together() -> None:
    """Their headings are then in the text, and what is left at the end is no passage alone."""
    found = list(cut(markdown_blocks("# A\n\none two\n\n# B\n\nthree four\n\n# C\n\nfive"), 250))
    assert [(piece.title, piece.text) for piece in found] == [
        ("A", "one two\n\nB\n\nthree four\n\nC\n\nfive")
    ]


def test_small_sections_do_not_pile_up() -> None:
    """Nor does what is left at the end lose its heading."""
    words = " ".join(f"word{n}" for n in range(15))
    found = list(cut([Block("A", 1), Block(words)] * 40, 40))
    assert [count_words(piece.text) for piece in found] == [15] * 40
    covered = "Fire and theft are covered in full. " * 12
    (piece,) = cut(markdown_blocks(f"# Covered\n\n{covered}\n\n# Excluded\n\nWar."), 80)
    assert (piece.title, piece.text[-14:]) == ("Covered", "Excluded\n\nWar.")


def test_headings_that_nothing_stands_under_are_text() -> None:
    """Also where a document is written in headings alone, but for a page with a title only."""
    found = list(cut(markdown_blocks("# A\n\n## Q1\n\n## Q2\n\ntext\n\n### Q3"), 80))
    assert [(piece.title, piece.text) for piece in found] == [("A", "Q1\n\nQ2\n\ntext\n\nQ3")]
    headings = [Block(f"Rule {n} is as good as any other", 1) for n in range(5)]
    (piece,) = cut(headings, 80)
    assert piece.text.splitlines()[::2] == [heading.text for heading in headings]
    assert list(cut(headings[:2], 80)) == []


def test_the_words_before_a_long_list_stay_with_it() -> None:
    """They say what it is a list of."""
    text = "# Terms\n\n" + "It is so. " * 25 + "\n\n# Not covered\n\nThese are not covered:\n\n"
    found = list(cut(markdown_blocks(text + "- war and riots\n" * 19), 78))
    assert [piece.title for piece in found] == ["Terms", "Not covered"]
    assert found[1].text.startswith("These are not covered:\n\n- war")


def test_encoded_data_is_cut_too() -> None:
    """It has no spaces, and no sentences."""
    assert [len(piece.text) for piece in cut([Block("x1" * 3000)], 100)] == [2000] * 3


def test_a_long_paragraph_is_cut_at_its_sentences() -> None:
    """At lines before that, at words after."""
    sentence = "This sentence has exactly seven words here. "
    found = list(cut([Block(tidy(sentence * 12))], 30))
    assert [count_words(piece.text) for piece in found] == [28, 28, 28]
    assert all(piece.text.endswith(".") for piece in found)
    unspaced = list(cut([Block("\u4e2d" * 500)], 50))
    assert [len(piece.text) for piece in unspaced] == [100] * 5


@given(
    st.lists(
        st.tuples(st.text(alphabet="ab.\n \u4e2d", max_size=300), st.integers(0, 3)), max_size=12
    ),
    st.integers(20, 60),
)
def test_nothing_is_lost_and_nothing_is_long(given_: list[tuple[str, int]], words: int) -> None:
    """Every paragraph is in the pieces, in order; a piece is little longer than asked for."""
    blocks = [Block(tidy(text), level) for text, level in given_]
    blocks = [block for block in blocks if block.text]
    pieces = list(cut(blocks, words))
    whole = "".join("".join(piece.text.split()) for piece in pieces)
    at = 0
    for block in blocks:
        if not block.level:
            bare = "".join(block.text.split())
            at = whole.find(bare, at)
            assert at >= 0
            at += len(bare)
    if any(not block.level for block in blocks):
        known = " ".join(f"{piece.title}\n{piece.text}" for piece in pieces)
        assert all(block.text in known for block in blocks if block.level)
    headings = sum(count_words(block.text) for block in blocks if block.level)
    assert all(count_words(piece.text) <= words + 20 + headings for piece in pieces)


# -- a shelf -------------------------------------------------------------------------------------


def test_a_folder_is_read_with_all_below_it(tmp_path: Path) -> None:
    """In the order of names; other kinds and empty files are named, hidden ones passed over."""
    (tmp_path / "b" / "c").mkdir(parents=True)
    (tmp_path / "b" / "c" / "dental.md").write_text(DENTAL)
    (tmp_path / "a.txt").write_text("Claims are settled within ten working days after they came.")
    (tmp_path / "copy.txt").write_text(
        "Claims are  settled within ten working days after they came."
    )
    (tmp_path / "logo.png").write_bytes(b"\x89PNG")
    (tmp_path / "none.txt").write_text(" \n")
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "x.md").write_text("hidden")
    found = read(tmp_path, words=20)
    names = [passage.id.rpartition("-")[0] for passage in found.passages]
    assert names == ["a.txt#1", "b/c/dental.md#1", "b/c/dental.md#2"]
    assert found.passages[0].title == "a"
    assert (found.documents, found.other, found.empty, found.repeated) == (
        4,
        ["logo.png"],
        ["none.txt"],
        1,
    )
    assert found.in_short() == (
        "3 passages of 4 documents; left out 1 file of other kinds (logo.png); left out 1 file "
        "without text (none.txt); left out 1 passage word for word like others"
    )
    first, second = read(tmp_path, words=20, limit=2).passages
    assert [first, second] == found.passages[:2]


def test_ids_change_with_the_text_alone(tmp_path: Path) -> None:
    """So that a record names what it was written from; a private document's name is in none."""
    path = tmp_path / "merger.md"
    path.write_text(DENTAL)
    first = [passage.id for passage in read(path, 20).passages]
    assert first == [passage.id for passage in read(path, 20).passages]
    path.write_text(DENTAL.replace("8 months", "9 months"))
    second = [passage.id for passage in read(path, 20).passages]
    assert (first[0] == second[0], first[1] == second[1]) == (False, True)
    assert not any("merger" in one.id for one in read(path, private=True).passages)
    assert all(one.private for one in read(path, private=True).passages)


def test_two_sources_may_not_hold_the_same_document(tmp_path: Path) -> None:
    """It would be asked about twice, under one id."""
    (tmp_path / "a.md").write_text(DENTAL)
    with pytest.raises(DocumentError, match="the same document is in another source"):
        together([read(tmp_path / "a.md"), read(tmp_path / "a.md")])


def test_sources_may_say_the_same(tmp_path: Path) -> None:
    """A passage that two documents have is asked about once, and private where either is."""
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.md").write_text(DENTAL.replace("80%", f"80% ({name})"))
    shelves = [read(tmp_path / "old", 20), read(tmp_path / "new", 20, private=True)]
    found = together(shelves)
    assert [passage.private for passage in found.passages] == [True, False, True]
    assert (found.documents, found.repeated) == (2, 1)


def test_a_folder_within_another_source_is_refused(tmp_path: Path) -> None:
    """Else its documents, private perhaps, were read as the other's too."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.md").write_text(DENTAL)
    with pytest.raises(DocumentError, match=r"in/a.md: the same document is in another source"):
        together([read(tmp_path, 20), read(tmp_path / "in", 60, private=True)])


def test_links_are_not_followed_in_circles(tmp_path: Path) -> None:
    """A document that two folders link to is read in both."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "dental.md").write_text(DENTAL)
    (tmp_path / "a" / "up").symlink_to("..")
    (tmp_path / "b").symlink_to("a")
    found = read(tmp_path)
    assert (found.documents, found.repeated) == (2, 1)


def test_a_run_folder_is_no_shelf(tmp_path: Path) -> None:
    """What a run writes would be asked about by the next one."""
    run = tmp_path / "outputs" / "one"
    run.mkdir(parents=True)
    for name in ("run.db", "recipe.yaml", "README.md"):
        (run / name).write_text("text")
    (tmp_path / "dental.md").write_text(DENTAL)
    found = read(tmp_path)
    assert (found.documents, found.other) == (1, ["outputs/one"])
    with pytest.raises(DocumentError, match="one: the folder of a run; name one that holds"):
        read(run)


def test_odd_names_are_shown_on_one_line(tmp_path: Path) -> None:
    """In ids, titles and errors; without what no database takes."""
    odd = tmp_path / os.fsdecode(b"a\xff b\n.txt")
    try:
        odd.write_text("Claims are settled within ten working days.")
    except OSError:
        pytest.skip("no such names on this disk")
    (one,) = read(tmp_path).passages
    assert one.id.startswith("a? b .txt#1-")
    assert one.source == f"{tmp_path}/a? b .txt:1"
    assert read(tmp_path, private=True).passages[0].title == "a? b"
    odd.write_bytes(b"\xff")
    with pytest.raises(DocumentError, match=r"a\? b .txt: not UTF-8"):
        read(tmp_path)


def test_pipes_are_not_waited_for(tmp_path: Path) -> None:
    """They are named, as a link to nowhere is."""
    os.mkfifo(tmp_path / "a.txt")
    (tmp_path / "b.txt").symlink_to("nowhere")
    with pytest.raises(
        DocumentError, match=r"a.txt: not a file .*b.txt: cannot be read \(No such file"
    ):
        read(tmp_path)


def _locked(path: Path) -> None:
    path.with_suffix(".pdf").write_bytes(pdf([["Hello"]], encrypted=True))


def _scanned(path: Path) -> None:
    path.with_suffix(".pdf").write_bytes(pdf([[], []]))


def _holding(suffix: str, data: bytes) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        path.with_suffix(suffix).write_bytes(data)

    return make


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (_locked, "encrypted; save a copy without its password"),
        (_scanned, "a PDF without text, such as scanned pages; give it a text layer first"),
        (_holding(".pdf", b"no"), "x.pdf: not a PDF"),
        (_holding(".docx", b"no"), "x.docx: not a Word document"),
        (_holding(".txt", b"\xff\xfe"), r"x.txt: not UTF-8 \(byte 0\)"),
        (_holding(".txt", b" "), "x.txt: holds no text"),
        (_holding(".xlsx", b"PK"), r"not a kind of document that is read \(.txt, .md"),
    ],
)
def test_what_cannot_be_read_is_told(
    make: Callable[[Path], None], said: str, tmp_path: Path
) -> None:
    """In one line, with what to do."""
    make(tmp_path / "x")
    (path,) = tmp_path.iterdir()
    with pytest.raises(DocumentError, match=said):
        read(path)


def test_faulty_files_are_named_together(tmp_path: Path) -> None:
    """The first few of them, so that they can be mended at once."""
    for n in range(7):
        (tmp_path / f"{n}.pdf").write_bytes(b"no")
    (tmp_path / "good.md").write_text(DENTAL)
    with pytest.raises(
        DocumentError, match=r"0.pdf: not a PDF; .*4.pdf: not a PDF \(and 2 more\)$"
    ):
        read(tmp_path)


def test_what_is_not_there_is_told(tmp_path: Path) -> None:
    """A path, and documents in a folder."""
    with pytest.raises(DocumentError, match="no such file or folder"):
        read(tmp_path / "x")
    with pytest.raises(DocumentError, match=r"holds no documents \(read are .txt, "):
        read(tmp_path)


@pytest.mark.parametrize(
    ("name", "package"), [("x.html", "bs4"), ("x.pdf", "pypdfium2"), ("x.docx", "docx")]
)
def test_a_package_that_is_missing_is_named(
    name: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the extra that brings it; text and Markdown need none."""
    plain = builtins.__import__

    def without(module: str, *rest: Any) -> Any:
        if module.partition(".")[0] == package:
            raise ModuleNotFoundError(module)
        return plain(module, *rest)

    (tmp_path / name).write_bytes(b"x")
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingDependency, match=r"selfinstruct\[documents\]"):
        read(tmp_path / name)
