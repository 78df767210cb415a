"""A module beside the program."""

VALUE = "found beside"
