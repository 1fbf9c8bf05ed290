"""The common library: messaging, the HTTP edge, access, policy. It imports no service."""
