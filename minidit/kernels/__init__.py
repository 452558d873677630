"""Fast twins of hot primitives and laws. Nobody has to read them:
the text in ops/ is the reference, and tests hold them equal.
"""
