"""How often wrong passwords can be tried: by address, and in all."""

import collections
import ipaddress
import time

EACH = (120, 2.0)  # of one address: so many at once, so many a second after that
ALL = (1000, 20.0)
WAITING = 40  # logins of one address that may wait for their turn
MOST = 10_000  # addresses that are remembered


class Bucket:
    """Holds tries. One that is empty lends them: whoever borrows waits until it is paid back."""

    def __init__(self, size, rate, now):
        self.size, self.rate = size, rate
        self._level, self._since = size, now

    def level(self, now):
        self._level = min(self.size, self._level + (now - self._since) * self.rate)
        self._since = now
        return self._level

    def take(self, now):
        """Takes one, and returns the seconds until it is there."""
        self._level = self.level(now) - 1
        return max(0.0, -self._level / self.rate)

    def give_back(self):
        self._level += 1


class Limits:
    """Only wrong passwords cost a try, so a class that logs in at once behind one address waits for nothing."""

    def __init__(self, clock=time.monotonic):
        self._clock = clock
        self._all = Bucket(*ALL, clock())
        self._of = collections.OrderedDict()

    def take(self, address):
        """The seconds to wait before a login is checked; None: too many wait already."""
        now = self._clock()
        bucket = self._bucket(address, now)
        if bucket.level(now) <= -WAITING or self._all.level(now) <= -WAITING * 10:
            return None
        return max(bucket.take(now), self._all.take(now))

    def give_back(self, address):
        """After the right password."""
        self._bucket(address, self._clock()).give_back()
        self._all.give_back()

    def _bucket(self, address, now):
        key = network_of(address)
        bucket = self._of.pop(key, None) or Bucket(*EACH, now)
        self._of[key] = bucket  # the latest is last
        while len(self._of) > MOST:
            self._of.popitem(last=False)
        return bucket


def network_of(address):
    """What one guesser has: an IPv4 address, or an IPv6 network of 64 bits."""
    try:
        known = ipaddress.ip_address(address)
    except ValueError:
        return address[:64]
    known = getattr(known, "ipv4_mapped", None) or known
    if known.version == 6:
        return str(ipaddress.ip_network((int(known) >> 64 << 64, 64)))
    return str(known)
