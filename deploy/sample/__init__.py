"""The sample city: its people, its bank, its token issuer. Development only."""
