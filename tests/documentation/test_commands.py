"""What is typed is taken from a document as it stands, and nothing of it is lost."""

from __future__ import annotations

from tests.documentation.commands import Line, Recipe, documented, page, readme, section

MARKDOWN = r"""
# bpipe

Here is the first:

    far$ bpipe listen :7000 | tar x
    tar c . | bpipe connect far.example:7000 \
        --secret key

It says:

    bpipe: sent 1 MiB

## More

**A night**, in a
crontab:

    0 3 * * 1-5 bpipe listen > backup.tar
    */5 3 * * * true

and a unit:

    [Service]
    Type=notify

```python
import asyncio

    indented()
```
"""

PAGE = r"""
.Sh DESCRIPTION
.Bd -literal
$ nobody wants it
.Ed
.Sh EXAMPLES
In each of these.
.Pp
A disk, onto
.Xr dd 1 :
.Bd -literal -offset indent
far# bpipe listen \e
        | dd of=/dev/sdc
# while sleep 1; do
        ssh \-N far
done &
$ tar c \(aq.\(aq
.Ed
.Ss "A file"
.Bd -literal -compact
Host far
    Port 7000
.Ed
.Sh SECURITY
"""


def test_markdown() -> None:
    first, night = readme(MARKDOWN, "x.md")
    assert first == Recipe(
        "x.md",
        "bpipe",
        (
            Line("bpipe listen :7000 | tar x", far=True),
            Line("tar c . | bpipe connect far.example:7000 \\\n    --secret key"),
        ),
        ("bpipe: sent 1 MiB",),
    )
    assert str(night) == "x.md: A night"
    assert [line.when for line in night.lines] == ["0 3 * * 1-5", "*/5 3 * * *"]
    assert [line.command for line in night.lines] == ["bpipe listen > backup.tar", "true"]
    assert night.files == ("[Service]\nType=notify",)


def test_a_page() -> None:
    disk, file = page("x.1", section(PAGE, "EXAMPLES"))
    assert disk == Recipe(
        "x.1",
        "A disk, onto dd 1",
        (
            Line("bpipe listen \\\n        | dd of=/dev/sdc", far=True, root=True),
            Line("while sleep 1; do\n        ssh -N far\ndone &", root=True),
            Line("tar c '.'"),
        ),
    )
    assert file == Recipe("x.1", "A file", (), ("Host far\n    Port 7000",))
    assert section(PAGE, "OPTIONS") == ""


def test_what_is_no_line_of_a_crontab() -> None:
    for text in ("bpipe listen 1 2 3 4 5", "7 8 9 bpipe", "0 3 * * *"):
        assert Line(text).when == ""
        assert Line(text).command == text


def test_the_documents_have_recipes_and_none_twice() -> None:
    found = documented()
    assert len(found) > 20
    assert len({(each.lines, each.files) for each in found}) == len(found)
    assert len({str(each) for each in found}) == len(found)
    for each in found:
        assert each.title
        for line in each.lines:
            assert line.text
            assert "\\e" not in line.text
