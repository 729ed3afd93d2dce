"""What stands between a member and its store, and does harm: seeded, so that what was seen once is seen again."""
