"""The REST interface: it parses, calls one function and answers."""
