"""How an encoder learns without labels, one objective a file."""
