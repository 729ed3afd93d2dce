"""The documentation as a site: what mkdocs is told besides mkdocs.yml. `make docs` builds it."""
