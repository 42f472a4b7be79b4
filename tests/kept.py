"""What an object of ours holds on to, however it does: for tests that nothing piles up."""

import gc
from collections import Counter, OrderedDict, deque

_FOLLOWED = (dict, list, tuple, set, frozenset, deque, OrderedDict, Counter, bytes)


def kept(root: object) -> Counter[type]:
    """How many of each kind can be reached, through containers and objects of ours."""
    found: dict[int, object] = {}
    ahead = [root]
    while ahead:
        thing = ahead.pop()
        is_ours = type(thing).__module__.startswith("ecryptfs_cuse.")
        if id(thing) not in found and (is_ours or isinstance(thing, _FOLLOWED)):
            found[id(thing)] = thing
            ahead.extend(gc.get_referents(thing))
    return Counter(type(thing) for thing in found.values())
