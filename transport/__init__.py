"""All that touches Kafka: client settings, topics, the transactional session, dead letters, the embedded broker."""
