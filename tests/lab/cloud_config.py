"""The settings of the cloud's services. All of them are on loopback, with one password: nobody else gets there."""

from __future__ import annotations

from pathlib import Path

from tests.lab.stock import GATEWAY

REGION = "RegionOne"
ADMIN_PASSWORD, SERVICE_PASSWORD = "admin", "svc"
PORTS = {"identity": 5000, "image": 9292, "placement": 8778, "compute": 8774, "network": 9696}
DATABASE_PORT, BROKER_PORT = 3306, 5672
DATABASES = ("keystone", "glance", "placement", "nova", "nova_api", "nova_cell0", "neutron")
URLS = {
    "identity": f"http://127.0.0.1:{PORTS['identity']}/v3",
    "image": f"http://127.0.0.1:{PORTS['image']}",
    "placement": f"http://127.0.0.1:{PORTS['placement']}",
    "compute": f"http://127.0.0.1:{PORTS['compute']}/v2.1",
    "network": f"http://127.0.0.1:{PORTS['network']}",
}
OUTER = "veth-phys"  # the end of the cable to the world that is the cloud's
BROKER = f"rabbit://guest:guest@127.0.0.1:{BROKER_PORT}/"


def database(name: str) -> str:
    return f"mysql+pymysql://os:os@127.0.0.1:{DATABASE_PORT}/{name}"


def configuration(folder: Path) -> dict[str, str]:
    """File → what is in it. `folder`: where the services keep what they have, and these files."""
    return {
        "etc/keystone.conf": _keystone(folder),
        "etc/glance-api.conf": _glance(folder),
        "etc/placement.conf": _placement(),
        "etc/nova.conf": _nova(folder),
        "etc/neutron.conf": _neutron(folder),
        "etc/ml2.ini": ML2,
        "etc/dhcp.ini": DHCP,
        "etc/l3.ini": L3,
        "etc/metadata.ini": METADATA,
        "libvirt/qemu.conf": QEMU,
        "libvirt/container": CONTAINER,
    }


def in_containers() -> bool:
    """Whether servers are containers. What boots them, and Docker in them, knows control groups of version 1 only."""
    return any(line.split()[2] == "cgroup" for line in Path("/proc/self/mounts").read_text().splitlines())


def _user(name: str) -> str:
    return f"""www_authenticate_uri = {URLS["identity"]}
auth_url = {URLS["identity"]}
auth_type = password
project_domain_name = Default
user_domain_name = Default
project_name = service
username = {name}
password = {SERVICE_PASSWORD}
region_name = {REGION}
"""


def _keystone(folder: Path) -> str:
    return f"""[database]
connection = {database("keystone")}
[token]
provider = fernet
[fernet_tokens]
key_repository = {folder}/keystone/tokens
[fernet_receipts]
key_repository = {folder}/keystone/tokens
[credential]
key_repository = {folder}/keystone/credentials
"""


def _glance(folder: Path) -> str:
    return f"""[DEFAULT]
bind_host = 127.0.0.1
workers = 1
enabled_backends = file:file
[database]
connection = {database("glance")}
[glance_store]
default_backend = file
[file]
filesystem_store_datadir = {folder}/glance/images
[os_glance_staging_store]
filesystem_store_datadir = {folder}/glance/staging
[os_glance_tasks_store]
filesystem_store_datadir = {folder}/glance/tasks
[keystone_authtoken]
{_user("glance")}
[paste_deploy]
flavor = keystone
config_file = /usr/share/glance-common/glance-api-paste.ini
[oslo_concurrency]
lock_path = {folder}/lock
"""


def _placement() -> str:
    return f"""[placement_database]
connection = {database("placement")}
[api]
auth_strategy = keystone
[keystone_authtoken]
{_user("placement")}
"""


def _nova(folder: Path) -> str:
    # helper_command: all of it is root already, and the default goes through sudo and a rootwrap.conf in /etc
    helper = f"helper_command = privsep-helper --config-file={folder}/etc/nova.conf"
    # vif_plugging_is_fatal: in a loaded machine neutron's word that a port is wired comes late. The ratios let in more
    # VMs than the machine has room for: most of what a flavor promises is never touched.
    return f"""[DEFAULT]
my_ip = 127.0.0.1
transport_url = {BROKER}
state_path = {folder}/nova
instances_path = {folder}/nova/instances
enabled_apis = osapi_compute,metadata
metadata_listen = 127.0.0.1
metadata_workers = 1
osapi_compute_listen = 127.0.0.1
osapi_compute_workers = 2
force_config_drive = {not in_containers()}
compute_driver = libvirt.LibvirtDriver
ram_allocation_ratio = 4.0
cpu_allocation_ratio = 32.0
disk_allocation_ratio = 10.0
periodic_fuzzy_delay = 0
reserved_host_memory_mb = 512
vif_plugging_timeout = 60
vif_plugging_is_fatal = false
[wsgi]
api_paste_config = /usr/share/nova-common/api-paste.ini
[api_database]
connection = {database("nova_api")}
[database]
connection = {database("nova")}
[keystone_authtoken]
{_user("nova")}
[service_user]
send_service_user_token = true
{_user("nova")}
[placement]
{_user("placement")}
[neutron]
service_metadata_proxy = true
metadata_proxy_shared_secret = lab
{_user("neutron")}
[glance]
api_servers = {URLS["image"]}
[libvirt]
{CONTAINERS if in_containers() else EMULATED}[vnc]
enabled = false
[scheduler]
workers = 1
discover_hosts_in_cells_interval = 2
[conductor]
workers = 1
[nova_sys_admin]
{helper}
[vif_plug_linux_bridge_privileged]
{helper}
[oslo_concurrency]
lock_path = {folder}/lock
"""


def _neutron(folder: Path) -> str:
    # root_helper: all of it is root already, and sudo with rootwrap costs half a second for each command
    return f"""[DEFAULT]
bind_host = 127.0.0.1
core_plugin = ml2
service_plugins = router
transport_url = {BROKER}
auth_strategy = keystone
state_path = {folder}/neutron
notify_nova_on_port_status_changes = true
notify_nova_on_port_data_changes = true
api_workers = 1
rpc_workers = 1
rpc_state_report_workers = 0
api_paste_config = /usr/share/neutron-common/api-paste.ini
[agent]
root_helper = env
[database]
connection = {database("neutron")}
[keystone_authtoken]
{_user("neutron")}
[nova]
{_user("nova")}
[oslo_concurrency]
lock_path = {folder}/lock
[experimental]
linuxbridge = true
"""


ML2 = f"""[ml2]
type_drivers = flat,vxlan
tenant_network_types = vxlan
mechanism_drivers = linuxbridge,l2population
extension_drivers = port_security
[ml2_type_flat]
flat_networks = physnet1
[ml2_type_vxlan]
vni_ranges = 1:1000
[securitygroup]
enable_ipset = true
firewall_driver = iptables
[linux_bridge]
physical_interface_mappings = physnet1:{OUTER}
[vxlan]
enable_vxlan = true
local_ip = 127.0.0.1
l2_population = true
"""

DHCP = f"""[DEFAULT]
interface_driver = linuxbridge
dhcp_driver = neutron.agent.linux.dhcp.Dnsmasq
dnsmasq_dns_servers = {GATEWAY}
"""

L3 = """[DEFAULT]
interface_driver = linuxbridge
agent_mode = legacy
"""

METADATA = """[DEFAULT]
nova_metadata_host = 127.0.0.1
metadata_proxy_shared_secret = lab
metadata_workers = 1
"""

CONTAINERS = """virt_type = lxc
images_type = raw
"""
# As a machine's root, that of a container may do all. Nova has no setting for that, and libvirt's default takes what
# Docker gives to its containers.
CONTAINER = """#!/bin/sh
name=$(echo " $* " | sed 's/.* --name \\([^ ]*\\) .*/\\1/')
may='<features><capabilities policy="allow"/></features>'
sed -i "s|<devices>|$may<devices>|" "/run/libvirt/lxc/$name.xml"
exec /etc/libvirt/program "$@"
"""
EMULATED = """virt_type = qemu
cpu_mode = custom
cpu_models = qemu64
disk_cachemodes = file=unsafe
"""

# VMs and what is written for them belong to root, in no control group; a console goes to its file without virtlogd
QEMU = """user = "root"
group = "root"
security_driver = "none"
cgroup_controllers = []
stdio_handler = "file"
"""


def clouds(users: dict[str, tuple[str, str, str]]) -> str:
    """A clouds.yaml. `users`: the cloud's name → user, password and project."""
    text = "clouds:\n"
    for cloud, (user, password, project) in users.items():
        text += f"""  {cloud}:
    auth:
      auth_url: {URLS["identity"]}
      username: {user}
      password: "{password}"
      project_name: {project}
      user_domain_name: Default
      project_domain_name: Default
    region_name: {REGION}
"""
    return text
