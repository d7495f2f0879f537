"""What bpipe sends ahead of itself to a machine on which it is not installed."""
