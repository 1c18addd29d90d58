"""One script per operator or process; each prints one JSON document with `--json`.

`plot_engine` draws one.
"""
