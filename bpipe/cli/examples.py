"""What stands below the help of each command."""

from __future__ import annotations

from typing import Final

ENVIRONMENT: Final = """\
Environment:
  each option has its variable, as BPIPE_GIVE_UP_AFTER for --give-up-after;
  what is typed wins
"""
EXIT_STATUS: Final = f"""\
Exit status:
  0 all delivered, 1 failed, 2 usage, 3 never connected, 4 lost after it was up,
  141 a consumer closed its pipe; with -- PROGRAM, that of the program

{ENVIRONMENT}
The manual: man bpipe
"""
COMMAND_STATUS: Final = f"""\
Exit status:
  that of the command; 255 failed otherwise, 141 the reader of stdout has left

{ENVIRONMENT}
The manual: man bpipe
"""
SSH: Final = f"""\
ssh's own short options may stand before DESTINATION and behind it, as in ssh;
bpipe's long ones before it.

Examples:
  tar c . | bpipe ssh far.example 'tar x -C /dst'
  bpipe ssh -p 2222 me@far.example 'pg_dump shop' > shop.sql
  bpipe ssh --output shop.sql far.example 'pg_dump shop'
  rsync -a -e 'bpipe ssh' src/ far.example:dst
  BORG_RSH='bpipe ssh' borg create ssh://far.example/./repo::now src
  GIT_SSH_COMMAND='bpipe ssh' git clone far.example:project.git

{COMMAND_STATUS}"""
RUN: Final = f"""\
Examples:
  bpipe run --via 'docker exec -i db' -- pg_dump shop > shop.sql
  bpipe run --via 'kubectl exec -i pod --' -- pg_restore -d shop < dump
  bpipe run --via 'ssh far.example' -- tar c /src > src.tar

{COMMAND_STATUS}"""
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
  bpipe listen :7000 --secret ~/.bpipe.key --name all --output all.tar
  bpipe listen unix:/run/user/1000/sum < answer
  bpipe listen localhost:7000 -- psql -1 -o /dev/null -v ON_ERROR_STOP=1 shop

{EXIT_STATUS}"""
ALL: Final = """\
Examples, between two machines:
  bpipe keygen ~/.bpipe.key && scp -p ~/.bpipe.key far.example:
  far$ bpipe listen :7000 --secret ~/.bpipe.key --name src > src.tar
  tar c . | bpipe connect far.example:7000 --secret ~/.bpipe.key --name src

And where ssh goes:
  tar c . | bpipe ssh far.example 'tar x -C /dst'

More: bpipe connect --help, bpipe ssh --help, man bpipe
"""
