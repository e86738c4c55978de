"""The tests; a package, since one of the libraries brings a package `tests` of its own."""
