"""A package to be run by -m."""

print("package imported as", __name__)
