"""Pages that need nothing else: their shell, tables, curves, and numbers as people read them."""
