"""A recipe's code, in a process that sees encoded rows and nothing else: no network, no key, no other file.

`host` is the site's side, and believes nothing but the form of what comes back. `guest` is the process, and is the recipe's
own from the moment in which its file runs. `wire` is what goes between them.
"""
