/*
 * A property is an assertion with a name.  The name is a bit that is always 0:
 * it changes nothing, but pan prints the assertion's text when it fails, and so
 * says which property it was.
 */
#define PROPERTY(name, condition) assert((condition) || name)
