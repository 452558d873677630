"""Where a law meets a network: what is trained, and how samples are drawn."""
