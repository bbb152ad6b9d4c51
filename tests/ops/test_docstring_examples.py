"""The examples in the docstrings of the operators, layers and losses run and print what they say."""

import doctest
import importlib
import inspect
import pkgutil

import pytest

PACKAGES = ("cxrfast.ops", "cxrfast.nn", "cxrfast.losses")
MODULES = [
    f"{name}.{found.name}"
    for name in PACKAGES
    for found in pkgutil.iter_modules(importlib.import_module(name).__path__)
]
PUBLIC = [(name, public) for name in PACKAGES for public in importlib.import_module(name).__all__]
OPTIONS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS


def has_examples(module: str) -> bool:
    return any(test.examples for test in doctest.DocTestFinder().find(importlib.import_module(module)))


@pytest.mark.parametrize("module", [module for module in MODULES if has_examples(module)])
def test_examples(module, capsys):
    failed, tried = doctest.testmod(importlib.import_module(module), optionflags=OPTIONS)
    assert tried
    assert not failed, capsys.readouterr().out


@pytest.mark.parametrize(("package", "name"), PUBLIC, ids=[name for _, name in PUBLIC])
def test_every_public_function_and_class_has_an_example(package, name):
    thing = getattr(importlib.import_module(package), name)
    if inspect.isclass(thing) and issubclass(thing, tuple):
        pytest.skip("a result type: the example is that of the function that returns it")
    assert ">>> " in inspect.getdoc(thing)


def test_a_wrong_example_fails():
    test = doctest.DocTestParser().get_doctest(">>> 1 + 1\n3\n", {}, "wrong", None, 0)
    assert doctest.DocTestRunner(optionflags=OPTIONS).run(test, out=lambda text: None).failed == 1
