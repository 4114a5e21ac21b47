"""Making parameters: corpus -> tokenizer -> packed tokens -> one loop for every stage -> checkpoint -> file."""
