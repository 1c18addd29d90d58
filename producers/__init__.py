"""The client library, sync and asyncio, and the load generator."""
