"""The floors: who may import whom, read from the source."""

import ast
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse.csgraph import connected_components

import jaxgmm

ROOT = Path(jaxgmm.__file__).parent
# Each place imports from those before it alone; the ground ends with the contract.
FLOORS = [
    "files",
    "_sharded",
    "_numerics",
    "_checks",
    "_programs",
    "labels",
    "_contract",
    "local",
    "model datasets",
    "mixtures em",
    "bayes",
    "report",
    "families sklearn __init__ __main__",
]
FLOOR = {place: floor for floor, places in enumerate(FLOORS) for place in places.split()}
ROOMS = [place for place in FLOOR if (ROOT / place).is_dir()]
FILES = sorted(path.relative_to(ROOT) for path in ROOT.rglob("*.py"))
GROUND = {place for place in FLOOR if FLOOR[place] <= FLOOR["_contract"]}


def _place(file):
    """The room, door or ground file that a path belongs to."""
    return file.parts[0].removesuffix(".py")


def _imports(file):
    """Dotted names that a file imports: deferred, for types, and a name after ``from`` too."""
    for node in ast.walk(ast.parse((ROOT / file).read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _own(file):
    """Places inside jaxgmm that a file imports from."""
    inside = [name.split(".") for name in _imports(file) if name.split(".")[0] == "jaxgmm"]
    return {parts[1] if len(parts) > 1 else "__init__" for parts in inside}


@pytest.mark.parametrize("file", FILES, ids=str)
def test_imports_point_downwards(file):
    place = _place(file)
    assert place in FLOOR, f"{file} belongs to no floor"
    if FLOOR[place] < max(FLOOR.values()):  # doors see everything
        assert all(FLOOR[other] < FLOOR[place] for other in _own(file) - {place})


def test_five_private_names_at_the_top():
    """The contract, arithmetic, where rows lie, checks, programs; all else is a room or a door."""
    private = {_place(file) for file in FILES if _place(file)[0] == "_"} - {"__init__", "__main__"}
    assert private == {"_contract", "_numerics", "_sharded", "_checks", "_programs"}


def test_the_ground_stands_on_jax_and_numpyro_distributions():
    known = {"jax", "jaxtyping", "numpy", "numpyro", "jaxgmm", *sys.stdlib_module_names}
    for file in FILES:
        if _place(file) in GROUND:
            names = set(_imports(file))
            assert not any(name.startswith("numpyro.infer") for name in names), file
            assert {name.split(".")[0] for name in names} <= known, file


def test_no_file_imports_itself_by_a_detour():
    modules = {".".join(("jaxgmm", *file.with_suffix("").parts)): file for file in FILES}
    modules = {name.removesuffix(".__init__"): file for name, file in modules.items()}
    places = {name: i for i, name in enumerate(modules)}
    arrows = np.zeros((len(modules), len(modules)))
    for name, file in modules.items():
        for imported in _imports(file):
            target = imported if imported in modules else imported.rpartition(".")[0]
            if target in modules and target != name:
                arrows[places[name], places[target]] = 1
    _, group = connected_components(arrows, connection="strong")
    found = {}
    for name, i in places.items():
        found.setdefault(group[i], []).append(name.removeprefix("jaxgmm."))
    assert [names for names in found.values() if len(names) > 1] == []


def test_what_the_host_compiles_is_in_one_store():
    """Where programs run in turn and are forgotten in time; what is left is a part of others."""
    calls = {
        str(file)
        for file in FILES
        for node in ast.walk(ast.parse((ROOT / file).read_text()))
        if isinstance(node, ast.Attribute) and node.attr in ("jit", "pmap")
    }
    assert calls == {"_programs/_store.py"}


def test_the_definition_does_not_know_how_it_is_sampled():
    for file in FILES:
        if _place(file) in {"model", "em"}:
            assert not any(name.startswith("numpyro.infer") for name in _imports(file)), file


def test_em_has_one_while_loop():
    """And k-means, which is another algorithm, has its own."""
    calls = [
        str(file)
        for file in FILES
        if _place(file) == "em"
        for node in ast.walk(ast.parse((ROOT / file).read_text()))
        if isinstance(node, ast.Attribute) and node.attr == "while_loop"
    ]
    assert sorted(calls) == ["em/_kmeans.py", "em/_loop.py"]


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_is_its_public_names(room):
    files = [file for file in FILES if _place(file) == room]
    assert all(file.stem == "__init__" or file.name[0] == "_" for file in files)
    tree = ast.parse((ROOT / room / "__init__.py").read_text())
    defined = [node for node in tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef))]
    assert not defined
    exported = __import__(f"jaxgmm.{room}", fromlist=["__all__"])
    assert all(hasattr(exported, name) and name[0] != "_" for name in exported.__all__)
    # Outside a room nobody reaches past its door.
    for file in FILES:
        if _place(file) != room:
            assert not any(name.startswith(f"jaxgmm.{room}._") for name in _imports(file)), file


# How many names each piece of the contract has. These numbers may only fall.
WIDTHS = {
    "Definition": 6,
    "EM": 14,
    "Conjugate": 4,
    "Health": 8,
    "Local": 7,
    "Names": 3,
    "Labels": 8,
    "Rows": 22,
}


def test_the_contract_comes_in_small_pieces():
    pieces = {base.__name__: base for base in jaxgmm.LatentModel.__mro__[1:-2]}
    own = lambda cls: {n for n in (*vars(cls), *cls.__annotations__) if n[0] != "_"}
    assert {name: len(own(cls)) for name, cls in pieces.items()} == WIDTHS
    # To define a model is to write five of them.
    assert pieces["Definition"].__abstractmethods__ == {
        "prior_sites", "likelihood", "sites", "from_sites", "n_parameters"
    }  # fmt: skip


def test_no_drawer_for_odds_and_ends():
    names = {part.strip("_").removesuffix(".py") for file in FILES for part in file.parts}
    assert not names & {"utils", "util", "helpers", "contrib", "misc", "common"}


def test_everything_public_is_there():
    assert sorted(jaxgmm.__all__) == jaxgmm.__all__
    assert all(hasattr(jaxgmm, name) and name[0] != "_" for name in jaxgmm.__all__)
