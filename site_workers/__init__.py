"""What runs inside a site's walls."""
