"""The commands: thin and lazy. Each module here holds the commands of one noun."""
