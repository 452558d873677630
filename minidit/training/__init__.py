"""How any loss is minimised: what a training step does, and what it costs."""
