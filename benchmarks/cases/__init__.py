"""The cases of `cxrfast bench`, one file for each operator family."""
