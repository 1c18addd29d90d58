"""Queries in, coordinated macro-batches out: window, tokenisation, cost model, batching policies, placement."""
