"""Running packs: the machine, pack sizes, time estimates, the backend protocol and the local backend."""
