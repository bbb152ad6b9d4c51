"""Benchmarks of the operators against alternative implementations on this machine: `cxrfast bench`."""
