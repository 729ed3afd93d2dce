"""Four real hospitals learn to tell a heart disease, and share no patient. Start with README.md."""
