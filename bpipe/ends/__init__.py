"""Where a pipe's bytes come from and go to."""
