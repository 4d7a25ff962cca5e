"""The drawn demo data set, and the whole way on it."""
