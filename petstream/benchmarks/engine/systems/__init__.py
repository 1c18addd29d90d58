"""One module per library, each with `build(Request) -> System`; each runs where its library is."""
