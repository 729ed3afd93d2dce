"""Ten sites learn to read digits, each image under differential privacy. Start with README.md."""
