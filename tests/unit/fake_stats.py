"""What engines say of a container's use: samples of their answers, without the parts that nobody reads."""

from __future__ import annotations

from tests.unit.api_schema import Json

# Docker Engine 20.10, API 1.41, on a host with cgroup v1
V1: Json = {
    "read": "2026-11-27T07:15:07.416902927Z",
    "preread": "0001-01-01T00:00:00Z",
    "pids_stats": {"current": 2, "limit": 512},
    "cpu_stats": {
        "cpu_usage": {
            "total_usage": 1505092269,
            "percpu_usage": [698726941, 806365328],
            "usage_in_kernelmode": 250000000,
            "usage_in_usermode": 1240000000,
        },
        "system_cpu_usage": 2016570000000,
        "online_cpus": 2,
    },
    "precpu_stats": {"cpu_usage": {"total_usage": 0, "usage_in_kernelmode": 0, "usage_in_usermode": 0}},
    "memory_stats": {
        "usage": 68521984,
        "max_usage": 68521984,
        "stats": {
            "cache": 10289152,
            "inactive_file": 4096,  # without the groups below it
            "rss": 56389632,
            "total_cache": 10289152,
            "total_inactive_file": 5103616,
            "total_rss": 56389632,
        },
        "limit": 2147483648,
    },
}

# API 1.43, on a host with cgroup v2
V2: Json = {
    "read": "2023-10-03T19:09:13.842221932Z",
    "preread": "0001-01-01T00:00:00Z",
    "pids_stats": {"current": 2, "limit": 13014},
    "cpu_stats": {
        "cpu_usage": {
            "total_usage": 3955663822000,
            "usage_in_kernelmode": 1861115782000,
            "usage_in_usermode": 2094548040000,
        },
        "system_cpu_usage": 8303217570000000,
        "online_cpus": 4,
    },
    "precpu_stats": {"cpu_usage": {"total_usage": 0, "usage_in_kernelmode": 0, "usage_in_usermode": 0}},
    "memory_stats": {
        "usage": 20103168,
        "stats": {"active_file": 5144576, "anon": 7581696, "file": 11812864, "inactive_file": 6668288},
        "limit": 11414532096,
    },
}

# a container that has ended, on any engine
ENDED: Json = {
    "read": "0001-01-01T00:00:00Z",
    "preread": "0001-01-01T00:00:00Z",
    "pids_stats": {},
    "cpu_stats": {"cpu_usage": {"total_usage": 0, "usage_in_kernelmode": 0, "usage_in_usermode": 0}},
    "memory_stats": {},
}


def look(second: int, *, cores: float, memory: int, limit: int) -> Json:
    """A look at a container that has used as many cores all the time, as a new engine shows it."""
    return {
        **V2,
        "read": f"2026-11-27T07:{second // 60:02}:{second % 60:02}.5Z",
        "cpu_stats": {"cpu_usage": {"total_usage": int(second * cores * 10**9)}},
        "memory_stats": {"usage": memory, "stats": {"inactive_file": 0}, "limit": limit},
    }
