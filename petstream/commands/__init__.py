"""One module per command (or group of commands); `petstream.__main__` lists and loads them lazily."""
