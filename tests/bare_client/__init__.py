"""Clients that are none of ours."""
