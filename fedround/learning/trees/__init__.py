"""Boosted trees whose splits are public: what they are, what a site says of their leaves, and what the server makes of it."""
