"""The drivers `qemu` and `virtualbox`: machines on the trainer's computer, which needs no rights for them.

`driver` is what a workflow sees; `records` what is known of each VM; `base_image` and `seed` are what a VM is made of;
`hypervisor` is what a hypervisor does, `qemu` and `virtualbox` how each does it.
"""
