"""The hypervisor VirtualBox, by its command line VBoxManage."""

from __future__ import annotations
