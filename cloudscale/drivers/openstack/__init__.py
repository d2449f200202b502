"""The driver `openstack`: machines that are made for a course in a cloud, and deleted with it.

driver: what a workflow asks · cloud: logging in, and asking again · choices: what the configuration names ·
inventory: what the course has · quota · making: a machine's parts · security: who reaches what · watch: waiting ·
login: from a running server to SSH · sweep: deleting. They are the only importers of openstacksdk.
"""
