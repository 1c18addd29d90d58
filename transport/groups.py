"""Names that several processes must agree on: consumer groups and transactional ids.

All begin with the namespace and a dot, so one prefix ACL covers them.
"""


def scheduler_group(namespace: str) -> str:
    """Return the consumer group of all schedulers."""
    return f"{namespace}.schedulers"


def worker_group(namespace: str, level: int) -> str:
    """Return the consumer group of the pool of one level."""
    return f"{namespace}.workers.{level}"


def transactional_id(group: str, slot: str) -> str:
    """Return the transactional id of one member's slot.

    Args:
        group: The member's consumer group.
        slot: The same over restarts of this member, different for every live one.
    """
    return f"{group}.{slot}"
