"""Everything that talks to the outside: stores, servers, settings, the model registry, Prefect's client."""
