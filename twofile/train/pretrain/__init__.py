"""From documents to a base model: vocabulary, packed tokens, the dial and its laws, the stage, the ladder."""
