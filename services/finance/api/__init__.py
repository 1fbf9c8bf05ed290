"""The REST API of finance, a module a noun; every route parses, makes one call and returns."""
