"""The wire contract: the messages between the processes, their codec, headers and topic names."""
