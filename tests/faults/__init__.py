"""Truth under faults: a ledger of what was sent, the logs of what became of it, and a checker."""
