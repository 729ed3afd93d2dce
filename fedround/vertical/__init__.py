"""Two members with the same customers and other columns: who they have in common, labels that were randomised, scores.

Pure: bytes and numbers in, bytes and numbers out. What a site lets out of it, its policy says (`site_workers.joining`).
"""
