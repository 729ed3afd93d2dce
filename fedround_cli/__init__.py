"""What a person types: one module per command group. Parses, calls, prints."""
