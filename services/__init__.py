"""The five services. They never import each other."""
