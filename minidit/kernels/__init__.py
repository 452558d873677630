"""Fast twins of primitives and laws. They need not be read: the plain text is the reference, and tests hold the two equal."""
