"""Where a law meets a network: training and sampling as short loops."""
