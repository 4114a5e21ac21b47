"""The API that OpenAI's clients speak: chat, completions, models; on this machine."""
