"""One suite for what both sessions promise: the in-memory one and Kafka's."""
