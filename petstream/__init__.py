"""The front door: the command line, one module per command."""
