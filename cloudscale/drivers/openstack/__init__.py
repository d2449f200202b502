"""The driver `openstack`: machines that are made for a course in a cloud, and deleted with it.

driver: what a workflow asks · cloud: login, requests and retries · credential: how long the login lasts ·
choices, images, networks, lookup, given_ips: what the configuration names or leaves open ·
inventory: what the course has · quota · making: the parts of a machine · security: who can reach which port ·
watch: waiting · sweep: deleting. Only these modules import openstacksdk.
"""
