"""Pages that a browser opens: each one file, with everything it shows inside."""
