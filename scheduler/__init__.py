"""Queries in, macro-batches out: window, tokenisation, cost model, policies, placement."""
