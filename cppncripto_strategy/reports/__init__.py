"""What a person looks at: pages, charts, tearsheets, the terminal."""
