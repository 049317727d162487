"""Every public name is documented, shown at work, and on the API page."""

import abc
import inspect
import operator
import pathlib
import re
import types

import pytest

import jaxgmm as jg

API_PAGE = pathlib.Path(__file__).parents[1] / "docs" / "api.md"
ROOMS = [name for name in jg.__all__ if isinstance(getattr(jg, name), types.ModuleType)]
CLASSES = [name for name in jg.__all__ if inspect.isclass(getattr(jg, name))]
FUNCTIONS = [name for name in jg.__all__ if name not in ROOMS and name not in CLASSES]
ROOM_FUNCTIONS = [
    f"{room}.{name}"
    for room in ROOMS
    for name in getattr(getattr(jg, room), "__all__", ())
    if inspect.isroutine(getattr(getattr(jg, room), name))
]

# What a function returns is shown in the examples of that function.
MADE_BY = {
    "Bootstrap": jg.bootstrap,
    "Calibration": jg.calibrate,
    "Fit": jg.fit,
    "LikelihoodRatioTest": jg.bootstrap_lrt,
    "KMeans": jg.kmeans,
    "KMeansRun": jg.kmeans,
    "MergeTree": jg.merge_components,
    "Posterior": jg.sample,
    "Run": jg.em.run,
    "Selection": jg.select,
    "StandardErrors": jg.standard_errors,
    "Stream": jg.stream,
    "Study": jg.study,
    "Comparison": jg.compare,
    "Verdict": jg.compare,
    "GaussianParams": jg.Mixture.params,
}
# What a user subclasses is shown in a page of its own.
CONTRACT = ["ConjugateFamily", "Family", "LatentModel"]


def _sections(thing):
    """Titles of the numpydoc sections of a docstring."""
    return re.findall(r"^([A-Z][A-Za-z ]+)\n-{3,}$", inspect.getdoc(thing) or "", re.MULTILINE)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(name):
    function = getattr(jg, name)
    sections = _sections(function)
    if inspect.signature(function).parameters:
        assert "Parameters" in sections
    for needed in ("Returns", "Examples"):
        assert needed in sections
    for parameter in inspect.signature(function).parameters:
        assert re.search(
            rf"^(.*, )?{parameter}(, .*)? : |^\**{parameter}$", inspect.getdoc(function), re.M
        )


@pytest.mark.parametrize("name", ROOM_FUNCTIONS)
def test_functions_of_rooms(name):
    assert inspect.getdoc(operator.attrgetter(name)(jg))


@pytest.mark.parametrize("name", CLASSES)
def test_classes(name):
    cls = getattr(jg, name)
    assert inspect.getdoc(cls)
    sections = _sections(cls)
    if name in CONTRACT:
        assert issubclass(cls, abc.ABC)
    elif name in MADE_BY:
        assert "Attributes" in sections
        assert "Examples" in _sections(MADE_BY[name])
    else:
        assert "Examples" in sections


@pytest.mark.parametrize("name", CLASSES)
def test_members(name):
    cls = getattr(jg, name)
    fields = {*getattr(cls, "__dataclass_fields__", ()), *getattr(cls, "_fields", ())}
    for member, value in vars(cls).items():
        if member.startswith("_") or member in fields or name == "Status":
            continue
        thing = value.fget if isinstance(value, property) else value
        if inspect.isroutine(thing):
            assert inspect.getdoc(getattr(cls, member)), f"{name}.{member} has no docstring"


@pytest.mark.parametrize("name", ROOMS)
def test_rooms(name):
    room = getattr(jg, name)
    assert room.__doc__
    public = getattr(room, "__all__", None)
    assert public is None or sorted(set(public)) == sorted(public)


def test_names_are_sorted_and_exist():
    assert list(jg.__all__) == sorted(jg.__all__)
    assert all(hasattr(jg, name) for name in jg.__all__)


@pytest.mark.parametrize("name", jg.__all__)
def test_api_page(name):
    assert f"\n::: jaxgmm.{name}\n" in API_PAGE.read_text()


@pytest.mark.parametrize("room", [room for room in ROOMS if hasattr(getattr(jg, room), "__all__")])
def test_api_page_lists_what_rooms_add(room):
    page = API_PAGE.read_text()
    listed = re.search(rf"^::: jaxgmm\.{room}\n    options:\n      members: \[(.*)\]$", page, re.M)
    assert listed, room
    added = {name for name in getattr(jg, room).__all__ if name not in jg.__all__}
    assert set(listed[1].split(", ")) == added
