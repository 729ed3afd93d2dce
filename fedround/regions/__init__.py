"""Regions: groups of members whose updates a regional coordinator adds up, by a mandate that the federation file gives."""
