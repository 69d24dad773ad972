"""Gateways that we did not write, run as they are: `make real`. They need Debian's packages, which .ci/run installs."""
