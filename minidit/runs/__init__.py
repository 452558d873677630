"""What a person starts: a configuration, a folder, its phases, its pictures."""
