"""One Jupyter server for each student, on a Docker Swarm, from a CSV file."""

__version__ = "0.1.0"
