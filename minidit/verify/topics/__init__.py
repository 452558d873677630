"""What an implementation can be asked for."""
