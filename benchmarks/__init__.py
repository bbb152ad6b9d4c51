"""The operators beside what a user would take instead, on this machine: `cxrfast bench`."""
