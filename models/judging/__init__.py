"""How networks are judged: probes, quality of embeddings, leak checks."""
