"""A search over folders, offline encyclopedias and web engines, and the folders themselves."""
