"""Clients that were written for other products, in a process of their own without network, keys or files of the site's."""
