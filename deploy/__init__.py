"""The only room that knows several services: forms, command line, engines, policies, sample."""
