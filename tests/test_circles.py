"""No module imports, by however many steps, what imports it: not for types alone either, and not within a function."""

from __future__ import annotations

from graphlib import TopologicalSorter

import grimp

PACKAGES = ("fedround", "fedround_cli", "fedround_examples", "flows", "infra", "site_workers", "tasks", "validation")


def test_no_import_goes_in_a_circle():
    graph = grimp.build_graph(*PACKAGES, exclude_type_checking_imports=False, cache_dir=None)
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    assert sum(map(len, imports.values())) > 3000
    TopologicalSorter(imports).prepare()
