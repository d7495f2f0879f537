"""What is typed is taken from a document as it stands, and nothing of it is lost."""

from __future__ import annotations

import re
from importlib.util import find_spec

from tests.documentation.commands import (
    README,
    ROOT,
    Line,
    Recipe,
    crontab,
    documented,
    one_row,
    page,
    readme,
    section,
)

MARKDOWN = r"""
# bpipe

Here is the first:

    far$ bpipe listen :7000 | tar x
    tar c . | bpipe connect far.example:7000 \
        --secret key

It says:

    bpipe: sent 1 MiB

## More

**A unit** has
a file:

    pgrep x

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
.Ss \&In a file
.Bd -literal -compact
Host far
    Port 7000
.Ed
.Sh SECURITY
"""


def test_markdown() -> None:
    first, unit = readme(MARKDOWN, "x.md")
    assert first == Recipe(
        "x.md",
        "bpipe",
        (
            Line("bpipe listen :7000 | tar x", far=True),
            Line("tar c . | bpipe connect far.example:7000 \\\n    --secret key"),
        ),
        ("bpipe: sent 1 MiB",),
    )
    assert str(unit) == "x.md: A unit"
    assert unit.lines == (Line("pgrep x"),)
    assert unit.files == ("[Service]\nType=notify",)


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
    assert file == Recipe("x.1", "In a file", (), ("Host far\n    Port 7000",))
    assert section(PAGE, "OPTIONS") == ""


def test_a_crontab() -> None:
    text = "PATH=/bin:/x=y\n# every night\n0 3 * * 1-5 tar c . > 1 2 3\n*/5 3 * * * true"
    assert crontab(text) == (["PATH=/bin:/x=y"], ["tar c . > 1 2 3", "true"])
    for text in ("bpipe listen 1 2 3 4 5", "7 8 9 bpipe", "0 3 * * *", "[Service]"):
        assert crontab(text) == ([], [])


def test_rows() -> None:
    assert (
        one_row("tar c . |\n        bpipe connect \\\n --name x")
        == "tar c . | bpipe connect --name x"
    )


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


def test_what_is_named_within_the_text_is_there() -> None:
    text = re.sub(r"^```.*?^```", "", README.read_text(), flags=re.MULTILINE | re.DOTALL)
    named = [one_row(each) for each in re.findall("`([^`]+)`", text)]
    makefile = (ROOT / "Makefile").read_text()
    for each in named:
        if found := re.match(r"man -l (\S+)", each):
            assert (ROOT / found[1]).exists(), each
        if found := re.match(r"python -m (\S+)", each):
            assert find_spec(found[1]) is not None, each
        if found := re.match(r"make (\w+)", each):
            assert f"\n{found[1]}: " in makefile, each
    assert any(each.startswith("python -m ") for each in named)
