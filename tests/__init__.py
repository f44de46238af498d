"""The test suite: one folder a package, and what they share (`corpus`, `oracles`)."""
