"""All that touches Kafka: settings, topics, transactional session, dead letters, broker."""
