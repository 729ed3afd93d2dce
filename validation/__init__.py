"""Pure checks without side effects: of rows, and of what a site sent."""
