"""The machinery: parts that can be replaced, how answers are compared, and how a mistake gets its name."""
