"""Benchmarks of the operators against alternative implementations: `cxrfast bench`."""
