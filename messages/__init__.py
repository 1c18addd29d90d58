"""The wire contract: queries, batches, escalations, results, errors, task events, their codec and headers."""
