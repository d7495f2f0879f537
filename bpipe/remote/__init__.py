"""What bpipe sends ahead of itself to a machine on which it is not installed."""

PYTHON = ("python3", "-ISm", "code", "-q")  # what is started there, and waits for a line
