"""A parameters file, running: engines, sessions, sampling, streaming and chat templates."""
