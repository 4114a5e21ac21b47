"""The API that OpenAI's clients speak: chat, completions, embeddings, models; on this machine."""
