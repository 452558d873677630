"""Foreign programs as targets: PyTorch, diffusers, and any program that speaks the protocol. Imported when they are used."""
