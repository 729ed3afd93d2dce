"""A round as functions: what a site will release (`offer`), what it does (`site`), what the server makes of it (`server`).

Pure: numbers in, numbers out; no folder, store, key or clock. Sites and coordinator call them with what they have fetched and
keep what they return; the simulator calls them in one process; `verify --recompute` calls the server's half again. So what is
simulated, what is live and what is audited cannot differ.
"""
