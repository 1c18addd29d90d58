"""Sizes in steps that recur: what is made for one size then serves near ones too."""


def power_of_two(size: int, smallest: int = 1) -> int:
    """Return the power of two, from `smallest` on, that holds a size of at least 1."""
    return max(smallest, 1 << (size - 1).bit_length())
