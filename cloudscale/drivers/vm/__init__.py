"""The drivers `qemu` and `virtualbox`: VMs on the trainer's computer, made without root rights.

driver: what a workflow asks · hypervisor: what a VM is, and what a hypervisor does with it · qemu, virtualbox: how ·
base_image, seed: what a VM is made from · records: what is stored about each VM.
"""
