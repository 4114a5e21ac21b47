"""Errands: tasks that take tools, in a small web that is made up and served here, so that what is true is known."""
