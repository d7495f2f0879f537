"""The command line: options, the process's own stdin and stdout, signals, and messages."""
