"""A run, or several beside one another, as one HTML page."""
