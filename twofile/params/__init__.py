"""The parameters file: one GGUF v3 file with weights, hyperparameters, vocabulary, chat template and lineage.

hyper, vocabulary, provenance   what the metadata say
container, parameters           reading, safe on any input
write, atomic                   writing, whole or not at all
blocks, kquants, mixture        the types of tensors, and which tensor gets which
quantise, show                  a file in a smaller type; a file described for people
huggingface, tokenizer_json, sentencepiece, safetensors     Hugging Face folders, in and out
llama2c                         checkpoints of llama2.c, in
names, pull                     from a name to a file, also on a hub

Importing the room imports nothing; import its modules.
"""
