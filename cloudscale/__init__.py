"""One Jupyter server for each student, on a Docker Swarm, from a CSV file."""

import sys

__version__ = "0.1.0"

# Invoke switches it off, and each command would compile all modules again; what the user said to Python counts
sys.dont_write_bytecode = bool(sys.flags.dont_write_bytecode)
