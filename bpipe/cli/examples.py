"""What stands below the help of each command."""

from __future__ import annotations

from typing import Final

EXIT_STATUS: Final = """\
Exit status:
  0 all delivered, 1 failed, 2 usage, 3 never connected, 4 lost after it was up,
  141 a consumer closed its pipe; with -- PROGRAM, that of the program

The manual: man bpipe
"""
COMMAND_STATUS: Final = """\
Exit status:
  that of the command; 255 failed otherwise, 141 the reader of stdout has left

The manual: man bpipe
"""
CONNECT: Final = f"""\
Examples:
  tar c . | bpipe connect far.example:7000 --secret ~/.bpipe.key --name src
  bpipe connect far.example:7000 --secret ~/.bpipe.key --name old > old.tar
  echo question | bpipe connect unix:/run/user/1000/sum
  ssh -o ProxyCommand='bpipe connect -q %h:7000' far.example

{EXIT_STATUS}"""
LISTEN: Final = f"""\
Examples:
  bpipe listen :7000 --secret ~/.bpipe.key --name src | tar x -C /dst
  bpipe listen :7000 --secret ~/.bpipe.key --name old < old.tar
  bpipe listen unix:/run/user/1000/sum < answer
  bpipe listen localhost:7000 -- psql -1 -o /dev/null -v ON_ERROR_STOP=1 shop

{EXIT_STATUS}"""
ALL: Final = """\
Example, between two machines:
  bpipe keygen ~/.bpipe.key && scp -p ~/.bpipe.key far.example:
  far$ bpipe listen :7000 --secret ~/.bpipe.key --name src > src.tar
  tar c . | bpipe connect far.example:7000 --secret ~/.bpipe.key --name src

More: bpipe connect --help, bpipe listen --help, man bpipe
"""
