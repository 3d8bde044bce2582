"""May a request go out: budgets, breakers and leases, in Redis."""
