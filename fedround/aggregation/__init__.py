"""One robust rule over the cohort's updates, streamed from disk."""
