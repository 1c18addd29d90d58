"""The policies by name. A new policy is one module here and one line in `POLICIES`."""

from scheduler.planning import Policy
from scheduler.policies.coordinated import coordinated
from scheduler.policies.fixed import fixed
from scheduler.policies.packed import packed

POLICIES: dict[str, Policy] = {
    "packed": packed,
    "coordinated": coordinated,
    "fixed": fixed,
}

DEFAULT_POLICY = "packed"
