"""One run of a pipe between its ends, and the process around it."""
