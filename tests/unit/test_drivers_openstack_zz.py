import time
import pytest
from tests.unit.openstack_cloud import *
from tests.unit.openstack_lab import *
pytestmark=MARKS
from tests.unit.openstack_cloud import own_cloud_fixture, clock_fixture, opened_fixture

def tale(lab):
    s=lab.stand_in
    s.compute.add_keypair("mine","ssh-ed25519 AAAA me")
    s.compute.outcomes |= {"bio-1":["ERROR: No valid host was found."],"bio-2":["SHUTOFF"]}
    s.add_ip()
    d=lab.driver(boot_volume="5G", key_pair="mine", availability_zone="nova")
    b=brought(d,2)
    print(b)
    d.prepare(b[0].machine)
    d.open_ports({4321})
    d2=lab.driver(boot_volume="5G", key_pair="mine", availability_zone="nova")
    ms=d2.machines()
    print([d2.survey(m) for m in ms])
    d2.open_ports({4322})
    print(d2.belongings())
    out=d2.sweep()
    print(out)
def test_x(stand_in, clock, monkeypatch):
    lab=CloudLab(monkeypatch, stand_in, clock)
    for i in range(2):
        t=time.time()
        tale(lab)
        print(time.time()-t, len(stand_in.requests))
        stand_in.requests.clear()
        print(lab.said, clock.now(), stand_in.totals())
    import pprint; pprint.pprint(stand_in.counts)
    lab.close()
