"""From a base model to an assistant: conversations, preferences, rewards, and the stages that learn from them."""
