"""What happens when. No arithmetic."""
