"""Long runs. What they make has names of its own: the tests remove whatever has theirs."""

from tests.lab import namespace

namespace.PREFIX = PREFIX = "cloudscale-soak"  # here, before any of the lab's modules takes it over
