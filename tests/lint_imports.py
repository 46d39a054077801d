"""No circle of files: what a module imports does not lead back to it. `import-linter` checks the layers above that."""

import sys
from graphlib import CycleError, TopologicalSorter

import grimp


def circle() -> list[str]:
    """Modules of which each imports the next, the last the first; empty if there are none.

    Imports for type checkers alone do not count.
    """
    graph = grimp.build_graph("hf_gpt", exclude_type_checking_imports=True, cache_dir=None)
    # The package itself imports lazily, by name.
    graph.remove_module("hf_gpt")
    order = TopologicalSorter({module: graph.find_modules_directly_imported_by(module) for module in graph.modules})
    try:
        order.prepare()
    except CycleError as error:
        return error.args[1]
    return []


if __name__ == "__main__":
    if found := circle():
        sys.exit(f"these files import each other: {', '.join(found)}")
