"""No circle of files: what a module imports does not lead back to it. `import-linter` checks the layers above that."""

import sys

import grimp


def circles() -> list[list[str]]:
    """Modules that import each other, at any depth; imports for type checkers alone do not count."""
    graph = grimp.build_graph("hf_gpt", exclude_type_checking_imports=True, cache_dir=None)
    # The package itself imports lazily, by name.
    graph.remove_module("hf_gpt")
    order: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(module: str) -> None:
        order[module] = lowest[module] = len(order)
        stack.append(module)
        for other in graph.find_modules_directly_imported_by(module):
            if other not in order:
                visit(other)
                lowest[module] = min(lowest[module], lowest[other])
            elif other in stack:
                lowest[module] = min(lowest[module], order[other])
        if lowest[module] == order[module]:
            place = stack.index(module)
            if len(stack) - place > 1:
                found.append(sorted(stack[place:]))
            del stack[place:]

    for module in sorted(graph.modules):
        if module not in order:
            visit(module)
    return found


if __name__ == "__main__":
    sys.setrecursionlimit(10_000)
    for circle in (wrong := circles()):
        print("these import each other:", ", ".join(circle))
    sys.exit(bool(wrong))
