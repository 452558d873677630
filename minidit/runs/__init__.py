"""Complete runs: a configuration, a folder, its phases, its pictures."""
