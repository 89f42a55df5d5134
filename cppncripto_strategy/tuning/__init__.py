"""A search over recipes: candidates judged on inner windows, the last days sealed until the end."""
