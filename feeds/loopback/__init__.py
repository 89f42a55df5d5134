"""An exchange in a box, for tests and demonstrations."""
