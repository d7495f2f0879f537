"""`bpipe demo`: a pipe over a network that keeps breaking."""
