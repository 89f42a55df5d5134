"""CPPNs that paint kernels: genome, decoding, encoder, evolution, workers."""
