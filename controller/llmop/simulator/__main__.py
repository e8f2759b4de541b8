"""Start the simulator, as a module of llmop or as a folder that was copied somewhere without the rest."""

import sys

if sys.version_info < (3, 11):  # noqa: UP036 - a copied folder meets whatever python3 there is
    raise SystemExit("the simulator needs Python 3.11 or newer, this is %d.%d" % sys.version_info[:2])  # noqa: UP031

if __package__:
    from .main import main
else:
    import importlib
    import importlib.util
    from pathlib import Path

    _folder = Path(__file__).resolve().parent
    # Python puts the folder itself on the path; its modules must be found as a package only, or their names
    # would shadow the standard library's.
    sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != _folder]
    _spec = importlib.util.spec_from_file_location(
        "simulator", _folder / "__init__.py", submodule_search_locations=[str(_folder)]
    )
    if _spec is None or _spec.loader is None:
        raise SystemExit(f"cannot load the simulator from {_folder}: __init__.py is missing")
    _package = importlib.util.module_from_spec(_spec)
    sys.modules["simulator"] = _package
    _spec.loader.exec_module(_package)
    main = importlib.import_module("simulator.main").main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
