"""How services log: one line each to standard error, which the supervisor keeps in a file."""

import logging


def log_to_stderr() -> None:
    """Log everything from INFO on, with the time and where it comes from."""
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
