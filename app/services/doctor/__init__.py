"""What is wrong, and how to mend it: one line each, for `sendable doctor`."""
