"""One module per command or group of commands; `petstream.__main__` loads them when called."""
